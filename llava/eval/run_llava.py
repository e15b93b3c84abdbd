"""One question about one or more images (upstream: llava/eval/run_llava.py, same flags).

python -m llava.eval.run_llava --model-path CHECKPOINT --image-file a.jpg,https://x/b.png --query "What differs?"
"""

import argparse

from llava.conversation import get_template
from llava.flags import Parser, run_program
from llava.serve.images import load_image, load_images

__all__ = ["eval_model", "load_image", "load_images"]


def eval_model(args: argparse.Namespace) -> str:
    """Prints the answer as it comes, and returns it; `args` has upstream's fields, ours may be missing."""
    # These import torch, so they wait until the flags have been read.
    from llava.checkpoint.folder import open_checkpoint
    from llava.eval.answering.answerer import Generation
    from llava.eval.answering.arguments import check_questions_template
    from llava.model.builder import load_checkpoint
    from llava.serve.chat import ChatSession

    checkpoint = open_checkpoint(args.model_path, args.model_base)
    name = args.conv_mode or checkpoint.template
    template = get_template(name)
    check_questions_template(name, checkpoint)
    images = load_images([name for name in args.image_file.split(args.sep) if name])
    tokenizer, model, processor, _ = load_checkpoint(checkpoint, vision_tower=getattr(args, "vision_tower", None))
    generation = Generation(
        max_new_tokens=args.max_new_tokens, temperature=args.temperature, top_p=args.top_p, num_beams=args.num_beams
    )
    session = ChatSession(model, tokenizer, processor, template, images, generation)
    if args.num_beams > 1:
        # A beam may change until the end, so that it cannot be streamed.
        text = session.answer(args.query)
        print(text)
        return text
    pieces = []
    for piece in session.ask(args.query):
        print(piece, end="", flush=True)
        pieces.append(piece)
    print()
    return "".join(pieces).strip()


def main() -> None:
    parser = Parser(description="Ask one question about images")
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--model-base")
    parser.add_argument("--image-file", required=True, help="files or web addresses, joined by --sep")
    parser.add_argument("--query", required=True, help="<image-placeholder> says where an image goes")
    parser.add_argument("--conv-mode", help="conversation template; default: the checkpoint's own")
    parser.add_argument("--sep", default=",")
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--top_p", type=float)
    parser.add_argument("--num_beams", type=int, default=1)
    parser.add_argument("--max_new_tokens", type=int, default=512)
    parser.add_argument("--vision-tower", help="tower folder, if config.json records one of another machine")
    eval_model(parser.parse_args())


if __name__ == "__main__":
    run_program(main, interrupted="")
