"""Models; the names that upstream exports from here."""

# ruff: noqa: F401

from bunny.model.language_model.bunny_llama import BunnyLlamaConfig, BunnyLlamaForCausalLM
from bunny.model.language_model.bunny_phi import BunnyPhiConfig, BunnyPhiForCausalLM
from bunny.model.language_model.bunny_phi3 import BunnyPhi3Config, BunnyPhi3ForCausalLM
from bunny.model.language_model.bunny_qwen2 import BunnyQwen2Config, BunnyQwen2ForCausalLM
from bunny.model.language_model.bunny_stablelm import BunnyStableLMConfig, BunnyStableLMForCausalLM
