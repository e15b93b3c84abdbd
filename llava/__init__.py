"""LLaVA-style vision-language models on today's torch, transformers and peft."""

import logging
import warnings

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
