"""The table of backbones: who gets a plain language model, and what is told for those that are not covered."""

import pytest

from llava.families import FAMILIES, UnknownFamilyError, family_of


def test_a_checkpoint_says_itself_what_it_is():
    for name, family in FAMILIES.items():
        for package in (None, "llava", "bunny"):
            assert family_of({"model_type": name}, package) is family
    assert family_of({"model_type": "llava"}).model_type == "llava_llama"


@pytest.mark.parametrize(
    ("backbone", "package", "expected"),
    [
        ("llama", None, "llava_llama"),
        ("llama", "llava", "llava_llama"),
        ("llama", "bunny", "bunny-llama"),
        ("mistral", "llava", "llava_mistral"),
        ("phi3", "bunny", "bunny-phi3"),
        ("phi", None, "bunny-phi"),
        ("qwen2", "bunny", "bunny-qwen2"),
        ("stablelm", "bunny", "bunny-stablelm"),
    ],
)
def test_the_entry_point_decides_on_a_plain_backbone(backbone, package, expected):
    assert family_of({"model_type": backbone}, package).model_type == expected


@pytest.mark.parametrize(
    ("backbone", "package", "words"),
    [
        ("phi", "llava", r"llava has no model on the backbone 'phi'; bunny has: use bunny/train/train\.py"),
        ("mistral", "bunny", r"use llava/train/train\.py"),
        ("minicpm", "bunny", "MiniCPM runs code that its repository brings along"),
        ("bunny-minicpm", None, "is not supported"),
        ("gpt2", None, r"'gpt2' is not supported; supported: llava_llama \(on llama\), .*bunny-phi \(on phi\)"),
    ],
)
def test_what_is_not_covered(backbone, package, words):
    with pytest.raises(UnknownFamilyError, match=words):
        family_of({"model_type": backbone}, package)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.model_type)
def test_classes(family):
    """Each on transformers' own class of its backbone, under the names that upstream's configs and files have."""
    model = family.load_model_class()
    assert model.config_class is family.load_config_class()
    assert model.config_class.model_type == family.model_type
    plain = next(c for c in model.__mro__ if c.__module__.startswith("transformers.models"))
    assert plain.__module__ == f"transformers.models.{family.backbone_type}.modeling_{family.backbone_type}"
    assert plain.__name__.endswith("ForCausalLM")
