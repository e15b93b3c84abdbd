"""Tiny random backbones of every family, each with a tokenizer of the kind that its real one is."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from llava.families import FAMILIES
from llava.model.builder import load_tokenizer

LAYERS = 4
_CORPUS = ["A chat between a curious user and an assistant. USER: Where is the red line? ASSISTANT: at the top left No"]


def byte_level_tokenizer(eos, bos=None, extra=()):
    """A byte-level BPE tokenizer like GPT-2's (no bos) or Llama-3's (bos in front of every text)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [token for token in (bos, eos, *extra) if token]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, bos_token=bos, additional_special_tokens=list(extra)
    )


def save_tokenizer(family, folder, parity):
    """The tokenizer of a backbone: SentencePiece, or byte-level with or without bos, with its own end tokens."""
    if family.backbone_type in ("mistral", "phi3") or family.model_type == "llava_llama":
        for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(parity / "llava-tiny" / name, folder / name)
        if family.backbone_type == "phi3":
            tokenizer = load_tokenizer(folder)
            tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
            for file in folder.glob("*token*"):
                file.unlink()
            tokenizer.save_pretrained(folder)
    elif family.backbone_type == "llama":
        # An instruction model's own turns end with another token than Bunny's template.
        byte_level_tokenizer("<|eot_id|>", "<|begin_of_text|>", ["<|end_of_text|>"]).save_pretrained(folder)
    else:
        byte_level_tokenizer("<|endoftext|>").save_pretrained(folder)


@pytest.fixture(scope="session")
def make_tokenizer():
    return byte_level_tokenizer


@pytest.fixture(scope="session")
def backbones(tmp_path_factory, parity):
    """model_type of a family -> folder of a tiny random language model that it can be built on."""
    root = tmp_path_factory.mktemp("backbones")
    folders = {}
    for number, family in enumerate(FAMILIES.values()):
        folder = folders[family.model_type] = root / family.model_type
        torch.manual_seed(number)
        config = AutoConfig.for_model(
            family.backbone_type,
            vocab_size=640,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4 if family.backbone_type == "phi" else 2,
            max_position_embeddings=512,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            # As the small ones of the Qwen family.
            tie_word_embeddings=family.backbone_type == "qwen2",
        )
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        save_tokenizer(family, folder, parity)
    return folders


@pytest.fixture(scope="session")
def siglip(tmp_path_factory):
    """A tiny SigLIP tower: 2 x 2 tokens an image, 3 layers."""
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(5)
    config = SiglipVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        initializer_range=0.2,
    )
    SiglipVisionModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_bunny(tmp_path_factory, backbones, siglip):
    """model_type of a family -> folder of a tiny random Bunny, made once."""
    made = {}

    def make(model_type):
        if model_type not in made:
            family, base = FAMILIES[model_type], backbones[model_type]
            torch.manual_seed(7)
            config = family.load_config_class().from_pretrained(base)
            model = family.load_model_class().from_pretrained(base, config=config)
            settings = {"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch"}
            settings |= {"mm_projector_type": "mlp2x_gelu", "pretrain_mm_mlp_adapter": None}
            model.get_model().initialize_vision_modules(SimpleNamespace(vision_tower=str(siglip), **settings))
            model.config.image_aspect_ratio = "pad"
            folder = made[model_type] = tmp_path_factory.mktemp("bunnies") / model_type
            model.save_pretrained(folder)
            load_tokenizer(base).save_pretrained(folder)
        return made[model_type]

    return make


@pytest.fixture
def run(monkeypatch):
    """Trains with a package's entry point; returns the model as it stood when training ended."""
    import bunny.train.train
    import llava.train.train

    ended = SimpleNamespace(model=None)
    save = llava.train.train.save_result

    def keep(trainer, plan, training_args):
        save(trainer, plan, training_args)
        ended.model = trainer.accelerator.unwrap_model(trainer.model).eval()

    monkeypatch.setattr(llava.train.train, "save_result", keep)

    def train(package, flags):
        module = bunny.train.train if package == "bunny" else llava.train.train
        module.train(argv=flags)
        return ended.model

    return train
