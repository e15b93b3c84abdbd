"""The chat in the terminal: questions from the keyboard, answers as they are generated."""

import argparse
import sys

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Kind
from llava.conversation import get_template
from llava.eval.answering.answerer import Generation
from llava.eval.answering.arguments import check_questions_template
from llava.model.builder import load_checkpoint
from llava.serve.chat import ChatError, ChatSession
from llava.serve.images import load_image


def chat(args: argparse.Namespace) -> None:
    """Reads questions from the terminal until an empty line or the end of the input."""
    checkpoint = open_checkpoint(args.model_path, args.model_base)
    name = args.conv_mode or checkpoint.template
    template = get_template(name)
    check_questions_template(name, checkpoint)
    if args.image_file and checkpoint.kind is Kind.FULL and not (checkpoint.tower or args.vision_tower):
        raise ChatError(f"{checkpoint.name} has no vision tower: it cannot be shown images")
    images = [load_image(args.image_file)] if args.image_file else []
    tokenizer, model, processor, _ = load_checkpoint(
        checkpoint,
        load_8bit=args.load_8bit,
        load_4bit=args.load_4bit,
        device=args.device,
        vision_tower=args.vision_tower,
    )
    generation = Generation(max_new_tokens=args.max_new_tokens, temperature=args.temperature)
    session = ChatSession(model, tokenizer, processor, template, images, generation)
    human, assistant = (role.replace("<|im_start|>", "").strip() for role in template.roles)
    while True:
        try:
            question = input(f"{human}: ")
        except (EOFError, KeyboardInterrupt):
            question = ""
        if not question.strip():
            print("exit")
            return
        answer(session, question, assistant, args.debug)
        print()


def answer(session: ChatSession, question: str, assistant: str, debug: bool = False) -> None:
    """Prints one answer as it is generated, after the assistant's name, and with `debug` the prompt before."""
    pieces = session.ask(question)
    try:
        if debug:
            print(f"\n{{'prompt': {session.prompt(question)!r}}}\n", file=sys.stderr)
        print(f"{assistant}: ", end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pieces.close()
        print(" [stopped]", end="")
    except ChatError as error:
        print(f"\nerror: {error}", file=sys.stderr)
