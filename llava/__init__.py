"""LLaVA-style vision-language models on today's torch, transformers and peft."""

import warnings

# Peft 0.21 asks transformers 5 by this name; nothing that a user of ours could change.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated", category=FutureWarning)
