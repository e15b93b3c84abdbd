"""Packaging. constraints.txt holds the versions that were tested together."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    name="llava-visual-region",
    version="0.1.0",
    description="Train, study and slim LLaVA-style vision-language models, by decoder layer",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["llava", "llava.*", "bunny", "bunny.*", "visual_region", "visual_region.*"]),
        *find_namespace_packages(include=["llava_plugins"]),
    ],
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
        # MMBench takes its submissions as a spreadsheet.
        "openpyxl",
    ],
    extras_require={
        "quickstart": ["gguf"],
        # ZeRO and QLoRA; both are pure wheels here, without a compiler, and run on a CPU too.
        "scale": ["deepspeed>=0.19", "bitsandbytes>=0.50", "wandb"],
        # Triton, which the kernels need, comes with torch on Linux.
        "kernels": ["liger-kernel>=0.8; platform_system == 'Linux'"],
        "cuda": ["flash-attn; platform_machine == 'x86_64'"],
        "dev": ["gguf", "pytest", "pytest-xdist", "ruff", "deepspeed>=0.19", "bitsandbytes>=0.50"],
    },
)
