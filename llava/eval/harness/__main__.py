"""lm-eval's own command line, which then knows our checkpoints as the model `llava_vr`.

    python -m llava.eval.harness run --model llava_vr --model_args pretrained=CHECKPOINT --tasks mmlu

lm-eval after 0.4.13 finds the model by itself (`lm_eval run --model llava_vr`), and so does lmms-eval: both read the
entry points of an installed package.
"""

import importlib.util

from llava.flags import run_program


def _main() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError("this needs the package lm-eval: pip install -c constraints.txt -e '.[harness]'")
    from lm_eval.__main__ import cli_evaluate

    # Registers our models.
    import llava.eval.harness.text  # noqa: F401

    cli_evaluate()


def main() -> None:
    run_program(_main, interrupted="")


if __name__ == "__main__":
    main()
