"""Bunny on StableLM-2 (upstream: bunny/model/language_model/bunny_stablelm.py)."""

from transformers import AutoConfig, AutoModelForCausalLM, StableLmConfig, StableLmForCausalLM, StableLmModel

from bunny.model.bunny_arch import BunnyConfig, BunnyMetaForCausalLM, BunnyMetaModel


class BunnyStableLMConfig(BunnyConfig, StableLmConfig):
    model_type = "bunny-stablelm"


class BunnyStableLMModel(BunnyMetaModel, StableLmModel):
    config_class = BunnyStableLMConfig


class BunnyStableLMForCausalLM(BunnyMetaForCausalLM, StableLmForCausalLM):
    config_class = BunnyStableLMConfig
    decoder_class = BunnyStableLMModel


AutoConfig.register("bunny-stablelm", BunnyStableLMConfig)
AutoModelForCausalLM.register(BunnyStableLMConfig, BunnyStableLMForCausalLM)
