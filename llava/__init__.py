"""LLaVA-style vision-language models on today's torch, transformers and peft."""

import logging
import warnings

# Peft 0.21 asks transformers 5 by this name; a user cannot change that.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated", category=FutureWarning)
# Bitsandbytes recommends another package for 4-bit kernels on every import, also to programs that quantise nothing.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
