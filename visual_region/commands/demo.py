"""`python -m visual_region demo`: a page in the browser for answers, attention and choosing layers."""

import argparse
import importlib.util
import os
import threading


def run(args: argparse.Namespace) -> None:
    _check(args)
    # Read when gradio is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from visual_region.page.answering import load_all, open_all
    from visual_region.scores import ScoreFile

    scores = ScoreFile.read(args.scores) if args.scores else None
    models = load_all(open_all(args), args)
    from visual_region.page.layout import build, serve

    cost_model = args.model_path or (scores.content.get("model") if scores else None) or ""
    page = build(models, args.scores or "", cost_model)
    print(f"the page is at {serve(page, args.port)} (this machine only); Ctrl-C ends it", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def _check(args: argparse.Namespace) -> None:
    wrong = []
    if not args.model_path and not args.scores:
        wrong.append("give --model-path, to ask a checkpoint, or --scores, to choose layers, or both")
    if args.compare and not args.model_path:
        wrong.append("--compare is a second checkpoint; give the first one as --model-path")
    elif args.compare and os.path.realpath(args.compare) == os.path.realpath(args.model_path):
        wrong.append("--compare names the checkpoint of --model-path; give another one, or leave it out")
    if args.compare_base and not args.compare:
        wrong.append("--compare-base is the base of --compare, which is missing")
    if args.port is not None and not 1024 <= args.port <= 65535:
        wrong.append(f"--port {args.port} is not from 1024 to 65535")
    if importlib.util.find_spec("gradio") is None:
        wrong.append("the page needs the package gradio: pip install -c constraints.txt -e '.[demo]'")
    if wrong:
        raise ValueError("; ".join(wrong))
