"""The benchmarks, one file each, in the order of the paper's table. To add one: a file, and a row here."""

from llava.eval.benchmarks.base import DATA, Benchmark
from llava.eval.benchmarks.bbh import BBH
from llava.eval.benchmarks.docvqa import DOCVQA, DOCVQA_TRAINING
from llava.eval.benchmarks.easy_vqa import EASY_VQA
from llava.eval.benchmarks.flickr30k import FLICKR30K_TRAINING
from llava.eval.benchmarks.gqa import GQA
from llava.eval.benchmarks.mixture import MIXTURE
from llava.eval.benchmarks.mmbench import MMBENCH
from llava.eval.benchmarks.mmlu import MMLU
from llava.eval.benchmarks.ocrvqa import OCRVQA, OCRVQA_TRAINING
from llava.eval.benchmarks.perplexity import PERPLEXITY, PILE_10K, WIKITEXT
from llava.eval.benchmarks.refcocog import REFCOCOG, REFCOCOG_TRAINING
from llava.eval.benchmarks.scienceqa import SCIENCEQA
from llava.eval.benchmarks.tdiuc import TDIUC, TDIUC_TRAINING
from llava.eval.benchmarks.textvqa import TEXTVQA
from llava.flags import run_program

__all__ = ["BENCHMARKS", "BY_NAME", "DATA", "TRAINING", "VISUAL", "Benchmark", "run_scorer"]

BENCHMARKS: tuple[Benchmark, ...] = (
    *(OCRVQA, DOCVQA, REFCOCOG, TDIUC, MMBENCH, GQA, SCIENCEQA, TEXTVQA),
    *(MMLU, BBH, PERPLEXITY, WIKITEXT, PILE_10K, EASY_VQA, MIXTURE),
)
BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS}
VISUAL = tuple(benchmark.name for benchmark in BENCHMARKS if benchmark.visual)
TRAINING = {
    **{"ocrvqa": OCRVQA_TRAINING, "docvqa": DOCVQA_TRAINING, "refcocog": REFCOCOG_TRAINING, "tdiuc": TDIUC_TRAINING},
    "flickr30k": FLICKR30K_TRAINING,
}
"""What `prepare --as-training` makes LLaVA JSON of."""


def run_scorer(name: str) -> None:
    run_program(BY_NAME[name].score_main)
