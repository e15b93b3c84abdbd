"""Perplexity of a text or of answers to images, as one number with its interval (llava/eval/answering/perplexity.py).

`python -m llava.eval.perplexity --model-path C --text-file T --report-file R`; interrupted, the same command goes on.
"""

from llava.eval.answering.flags import perplexity_parser as make_parser
from llava.files import sha256_of
from llava.flags import run_program
from llava.journal import Journal
from llava.outputs import REPORT, check_cache, check_files

_NOT_SETTINGS = ("report_file", "batch_size", "unit")
_STATED = ("corpus", "reading", "context", "stride", "bos", "template", "unit")


def main() -> None:
    args = make_parser().parse_args()
    check_files({"--report-file": (args.report_file, REPORT)}, [args.text_file, args.data_path])
    check_cache(args.vision_feature_cache, [args.model_path, args.model_base, args.vision_tower])
    # These import torch, so they wait until the flags have been read.
    from llava.checkpoint.identity import digest
    from llava.eval.answering.arguments import dtype_name, load, open_model
    from llava.eval.answering.perplexity import Corpus, check_flags, report_of

    checkpoint = open_model(args)
    check_flags(args, checkpoint)
    corpus = Corpus.open(args, checkpoint)
    settings = {name: value for name, value in vars(args).items() if name not in _NOT_SETTINGS}
    if not args.as_lm_eval:
        # Journals of earlier versions do not have it.
        del settings["as_lm_eval"]
    settings |= {"identity": digest(checkpoint), "sha": sha256_of(args.text_file or args.data_path)}
    # Journals of earlier versions hold the flag.
    older, settings = settings, settings | {"dtype": dtype_name(args)}
    journal = Journal(args.report_file, settings, "--report-file", older)
    tokenizer, model, processor = load(args, checkpoint, corpus.needs_tower)
    pieces, details = corpus.measure(model, tokenizer, processor, journal)
    report = report_of(pieces, args.unit, {**details, "dtype": str(model.dtype)}, str(args.model_path))
    stated = ((name, report.details.get(name)) for name in _STATED)
    print(", ".join(f"{name} {value}" for name, value in stated if value is not None))
    report.publish(args.report_file)
    journal.remove()


if __name__ == "__main__":
    run_program(main)
