"""Chat with a model about an image, in the terminal (upstream: llava/serve/cli.py, same flags).

    python -m llava.serve.cli --model-path CHECKPOINT --image-file photo.jpg

An empty line ends the chat; Ctrl-C ends an answer.
"""

import argparse
import sys

from llava.checkpoint.folder import open_checkpoint
from llava.conversation import get_template
from llava.eval.answering.answerer import Generation
from llava.flags import Parser, run_program
from llava.model.builder import load_checkpoint
from llava.serve.chat import ChatError, ChatSession
from llava.serve.images import load_image


def chat(args: argparse.Namespace) -> None:
    """Reads questions from the terminal until an empty line or the end of the input."""
    checkpoint = open_checkpoint(args.model_path, args.model_base)
    template = get_template(args.conv_mode or checkpoint.template)
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
        if args.debug:
            print(f"\n{{'prompt': {session.prompt(question)!r}}}\n", file=sys.stderr)
        print(f"{assistant}: ", end="", flush=True)
        answer(session, question)
        print()


def answer(session: ChatSession, question: str) -> None:
    """Prints one answer as it is generated."""
    pieces = session.ask(question)
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pieces.close()
        print(" [stopped]", end="")
    except ChatError as error:
        print(f"\nerror: {error}", file=sys.stderr)


def main() -> None:
    parser = Parser(description="Chat with a model about an image")
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--model-base")
    parser.add_argument("--image-file", help="file or web address; without it, the chat is about text")
    parser.add_argument("--device", default="cuda", help="cuda (the CPU if there is no GPU), cuda:1, cpu")
    parser.add_argument("--conv-mode", help="conversation template; default: the checkpoint's own")
    parser.add_argument("--temperature", type=float, default=0.2, help="0: always the most probable token")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--load-8bit", action="store_true")
    parser.add_argument("--load-4bit", action="store_true")
    parser.add_argument("--debug", action="store_true", help="print the prompt")
    parser.add_argument("--vision-tower", help="tower folder, if the recorded one is missing")
    chat(parser.parse_args())


if __name__ == "__main__":
    run_program(main, interrupted="")
