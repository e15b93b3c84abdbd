"""Chat with a Bunny about an image, in the terminal (upstream: bunny/serve/cli.py)."""

from bunny.eval.entry import run

if __name__ == "__main__":
    run("llava.serve.cli")
