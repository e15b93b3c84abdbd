"""LLaVA-style vision-language models on today's torch, transformers and peft."""
