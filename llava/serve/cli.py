"""Chat with a model about an image, in the terminal (upstream: llava/serve/cli.py, same flags).

    python -m llava.serve.cli --model-path CHECKPOINT --image-file photo.jpg

An empty line ends the chat; Ctrl-C ends an answer.
"""

from llava.flags import Parser, device, run_program


def make_parser() -> Parser:
    parser = Parser(description="Chat with a model about an image")
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--model-base")
    parser.add_argument("--image-file", help="file or web address; without it, the chat is about text")
    parser.add_argument("--device", type=device, default="cuda", help="cuda (the CPU if there is no GPU), cuda:1, cpu")
    parser.add_argument("--conv-mode", help="conversation template; default: the checkpoint's own")
    parser.add_argument("--temperature", type=float, default=0.2, help="0: always the most probable token")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--load-8bit", action="store_true")
    parser.add_argument("--load-4bit", action="store_true")
    parser.add_argument("--debug", action="store_true", help="print the prompt")
    parser.add_argument("--vision-tower", help="tower folder, if the recorded one is missing")
    return parser


def _main() -> None:
    args = make_parser().parse_args()
    # Imports torch, so it waits until the flags have been read.
    from llava.serve.terminal import chat

    chat(args)


def main() -> None:
    run_program(_main, interrupted="")


if __name__ == "__main__":
    main()
