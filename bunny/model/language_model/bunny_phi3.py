"""Bunny on Phi-3-mini, with fused qkv and gate-up (upstream: bunny/model/language_model/bunny_phi3.py)."""

from transformers import AutoConfig, AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM, Phi3Model

from bunny.model.bunny_arch import BunnyConfig, BunnyMetaForCausalLM, BunnyMetaModel


class BunnyPhi3Config(BunnyConfig, Phi3Config):
    model_type = "bunny-phi3"


class BunnyPhi3Model(BunnyMetaModel, Phi3Model):
    config_class = BunnyPhi3Config


class BunnyPhi3ForCausalLM(BunnyMetaForCausalLM, Phi3ForCausalLM):
    config_class = BunnyPhi3Config
    decoder_class = BunnyPhi3Model


AutoConfig.register("bunny-phi3", BunnyPhi3Config)
AutoModelForCausalLM.register(BunnyPhi3Config, BunnyPhi3ForCausalLM)
