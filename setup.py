"""Packaging. constraints.txt holds the versions that were tested together."""

import re
from pathlib import Path

from setuptools import find_packages, setup

# Read, not imported: torch is not there yet.
VERSION = re.search(
    r'^__version__ = "(.+)"$', Path(__file__).with_name("llava").joinpath("__init__.py").read_text(), re.M
)

setup(
    name="llava-visual-region",
    version=VERSION[1],
    description="Train, study and slim LLaVA-style vision-language models, by decoder layer",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["llava", "llava.*", "bunny", "bunny.*", "visual_region", "visual_region.*"]),
        # A namespace package. A search for it would read every folder here, data and checkpoints too.
        "llava_plugins",
    ],
    package_data={
        "llava": ["py.typed", "train/deepspeed_configs/*.json"],
        "bunny": ["py.typed"],
        "visual_region": ["py.typed"],
    },
    entry_points={
        "console_scripts": [
            "visual-region = visual_region.__main__:main",
            "llava-train = llava.train.train:train",
            "llava-eval = llava.eval.suite.benchmark:program",
        ],
        # Where the harnesses look for models of other packages: llava/eval/harness.
        "lm_eval.models": ["llava_vr = llava.eval.harness.text:LlavaVR"],
        "lmms_eval.models": ["llava_vr = llava.eval.harness:manifest"],
    },
    install_requires=[
        "torch>=2.6",
        "transformers>=5.20",
        "peft>=0.20",
        "accelerate>=1.10",
        "safetensors",
        "sentencepiece",
        # transformers reads a SentencePiece tokenizer.model through it, and says "tiktoken" where it is missing.
        "protobuf",
        "pyarrow>=16",
        "pillow",
        "numpy",
        "filelock",
        "psutil",
        "matplotlib",
        # Plans of studies.
        "pyyaml",
        # MMBench takes its submissions as a spreadsheet.
        "openpyxl",
    ],
    extras_require={
        "quickstart": ["gguf"],
        # export --format gguf
        "gguf": ["gguf>=0.19"],
        # ZeRO and QLoRA; both are pure wheels here, without a compiler, and run on a CPU too.
        "scale": ["deepspeed>=0.19", "bitsandbytes>=0.50", "wandb"],
        # For --report_to.
        "trackers": ["tensorboard", "wandb"],
        # The page of `python -m visual_region demo`. gradio 6 does not allow Pillow 13 yet.
        "demo": ["gradio>=6.20", "pillow<13"],
        # Triton, which the kernels need, comes with torch on Linux.
        "kernels": ["liger-kernel>=0.8; platform_system == 'Linux'"],
        # Our checkpoints as a model of lm-eval and of lmms-eval: docs/harnesses.md.
        "harness": ["lm-eval>=0.4.10"],
        "harness-images": ["lmms-eval>=0.7"],
        "cuda": ["flash-attn; platform_machine == 'x86_64'"],
        "docs": ["mkdocs-material>=9", "mkdocstrings[python]>=0.30"],
        "dev": [
            "gguf",
            "ipykernel",
            "nbclient",
            "pytest",
            "pytest-xdist",
            "ruff",
            "deepspeed>=0.19",
            "bitsandbytes>=0.50",
        ],
    },
)
