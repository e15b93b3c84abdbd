"""The table of backbones: who gets a plain language model, and what is told for those that are not covered."""

import os
import subprocess
import sys
import textwrap

import pytest

from llava.families import ModelFamily, UnknownFamilyError, family_of, known_families, register_family


def test_a_checkpoint_says_itself_what_it_is():
    for name, family in known_families().items():
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


@pytest.mark.parametrize("family", known_families().values(), ids=lambda family: family.model_type)
def test_classes(family):
    """Each on transformers' own class of its backbone, under the names that upstream's configs and files have."""
    model = family.load_model_class()
    assert model.config_class is family.load_config_class()
    assert model.config_class.model_type == family.model_type
    plain = next(c for c in model.__mro__ if c.__module__.startswith("transformers.models"))
    assert plain.__module__ == f"transformers.models.{family.backbone_type}.modeling_{family.backbone_type}"
    assert plain.__name__.endswith("ForCausalLM")


def test_a_model_type_has_one_family():
    family = known_families()["llava_llama"]
    register_family(family)
    with pytest.raises(ValueError, match="two families have the model_type 'llava_llama'"):
        register_family(ModelFamily("llava_llama", "llama", "other", "other", "vicuna_v1", "tower"))


WITHOUT_BUNNY = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "bunny":
            raise ImportError("no bunny")

sys.meta_path.insert(0, Absent())
from llava.families import UnknownFamilyError, family_of
assert "torch" not in sys.modules
from llava.train.train import train
train(argv=sys.argv[2:])
from llava.model.builder import load_pretrained_model
print(type(load_pretrained_model(sys.argv[1], device="cpu")[1]).__name__)
assert "bunny" not in sys.modules
try:
    family_of({"model_type": "bunny-phi"})
except UnknownFamilyError as error:
    print(error)
"""


def test_llava_works_without_bunny(train_flags, tmp_path):
    """Trains and loads; says of a Bunny that the package is not here."""
    output = tmp_path / "out"
    command = [sys.executable, "-c", WITHOUT_BUNNY, output, *train_flags(output, tune_layers="0", max_steps=1)]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "\nLlavaLlamaForCausalLM\n" in result.stdout
    assert "'bunny-phi' is not supported" in result.stdout
    assert "the package bunny is missing (no bunny)" in result.stdout


def test_another_package_adds_a_backbone_and_a_template(tiny, tmp_path, python):
    """One module with the classes and one with the row; llava's programs find them without naming the package."""
    files = {
        "llava_plugins/shelf.py": "import shelf.families",
        "shelf/__init__.py": "",
        "shelf/families.py": """
            from dataclasses import replace
            from llava.conversation import conv_templates
            from llava.families import ModelFamily, register_family
            conv_templates["shelf"] = replace(conv_templates["vicuna_v1"], system="Read.")
            register_family(ModelFamily("shelf-gemma", "gemma", "shelf", "shelf.gemma", "shelf", "some/tower"))
            """,
        "shelf/gemma.py": """
            from transformers import AutoConfig, AutoModelForCausalLM, GemmaConfig, GemmaForCausalLM, GemmaModel
            from llava.model.llava_arch import LlavaMetaForCausalLM, LlavaMetaModel
            class Config(GemmaConfig):
                model_type = "shelf-gemma"
            class Model(LlavaMetaModel, GemmaModel):
                config_class = Config
            class ForCausalLM(LlavaMetaForCausalLM, GemmaForCausalLM):
                config_class = Config
                decoder_class = Model
            AutoConfig.register("shelf-gemma", Config)
            AutoModelForCausalLM.register(Config, ForCausalLM)
            """,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    code = """
        from llava.conversation import get_template
        from llava.families import family_of, known_families, template_of_config
        family = family_of({"model_type": "gemma"})
        assert template_of_config({"model_type": "shelf-gemma"}) == "shelf"
        assert get_template("shelf").system == "Read."
        assert "bunny-phi" in known_families()
        assert family.load_model_class().__module__ == "shelf.gemma"
        """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([python, "-c", textwrap.dedent(code)], env=environment, check=True)
