"""Bunny on Qwen1.5 and Qwen2 (upstream: bunny/model/language_model/bunny_qwen2.py)."""

from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen2Model

from bunny.model.bunny_arch import BunnyConfig, BunnyMetaForCausalLM, BunnyMetaModel


class BunnyQwen2Config(BunnyConfig, Qwen2Config):
    model_type = "bunny-qwen2"


class BunnyQwen2Model(BunnyMetaModel, Qwen2Model):
    config_class = BunnyQwen2Config


class BunnyQwen2ForCausalLM(BunnyMetaForCausalLM, Qwen2ForCausalLM):
    config_class = BunnyQwen2Config
    decoder_class = BunnyQwen2Model


AutoConfig.register("bunny-qwen2", BunnyQwen2Config)
AutoModelForCausalLM.register(BunnyQwen2Config, BunnyQwen2ForCausalLM)
