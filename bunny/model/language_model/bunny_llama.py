"""Bunny on Llama-3 (upstream: bunny/model/language_model/bunny_llama.py)."""

from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaModel

from bunny.model.bunny_arch import BunnyConfig, BunnyMetaForCausalLM, BunnyMetaModel


class BunnyLlamaConfig(BunnyConfig, LlamaConfig):
    model_type = "bunny-llama"


class BunnyLlamaModel(BunnyMetaModel, LlamaModel):
    config_class = BunnyLlamaConfig


class BunnyLlamaForCausalLM(BunnyMetaForCausalLM, LlamaForCausalLM):
    config_class = BunnyLlamaConfig
    decoder_class = BunnyLlamaModel


AutoConfig.register("bunny-llama", BunnyLlamaConfig)
AutoModelForCausalLM.register(BunnyLlamaConfig, BunnyLlamaForCausalLM)
