"""Bunny on Phi-1.5 and Phi-2 (upstream: bunny/model/language_model/bunny_phi.py)."""

from transformers import AutoConfig, AutoModelForCausalLM, PhiConfig, PhiForCausalLM, PhiModel

from bunny.model.bunny_arch import BunnyConfig, BunnyMetaForCausalLM, BunnyMetaModel


class BunnyPhiConfig(BunnyConfig, PhiConfig):
    model_type = "bunny-phi"


class BunnyPhiModel(BunnyMetaModel, PhiModel):
    config_class = BunnyPhiConfig


class BunnyPhiForCausalLM(BunnyMetaForCausalLM, PhiForCausalLM):
    """The head has no bias, as in upstream's checkpoints; the bias of Microsoft's Phi is ignored."""

    config_class = BunnyPhiConfig
    decoder_class = BunnyPhiModel
    _keys_to_ignore_on_load_unexpected = (*BunnyMetaForCausalLM._keys_to_ignore_on_load_unexpected, r"lm_head\.bias")


AutoConfig.register("bunny-phi", BunnyPhiConfig)
AutoModelForCausalLM.register(BunnyPhiConfig, BunnyPhiForCausalLM)
