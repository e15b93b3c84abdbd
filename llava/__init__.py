"""LLaVA-style vision-language models on today's torch, transformers and peft."""

import logging
import os
import sys
import warnings

__version__ = "0.1.0"

# How long OpenMP's threads spin while they wait for each other, before they sleep: 0.1 ms instead of 3 ms (GNU), 1 ms
# instead of 200 ms (LLVM). Where another program uses a core as well, threads that spin take the time of those that
# compute. OpenMP reads this when torch is loaded.
if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ |= {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}

# Peft 0.21 asks transformers 5 by this name; a user cannot change that.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated", category=FutureWarning)
# Bitsandbytes recommends another package for 4-bit kernels on every import, also to programs that quantise nothing.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# accelerate imports DeepSpeed wherever it is installed, also if it is not used, and DeepSpeed looks for a GPU then.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
# The trainer gives the model the tokenizer's special tokens. That is intended: a backbone often has no pad token.
logging.getLogger("transformers.trainer_utils").addFilter(
    lambda record: "has new PAD/BOS/EOS tokens" not in record.getMessage()
)
