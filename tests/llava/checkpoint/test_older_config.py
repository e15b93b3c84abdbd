"""config.json in two forms: what earlier releases of transformers read, and what is read here."""

import json

import pytest

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import digest
from llava.checkpoint.older_config import with_older_fields, without_older_fields
from llava.families import known_families
from tests.test_written_folders import FIELDS

SIZES = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128, "dtype": "bfloat16"}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
ROTATIONS = [
    ("llama", {"rope_theta": 500000.0}, None),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"type": "linear", "factor": 2.0}),
    ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2}}, {"type": "dynamic", "factor": 2.0}),
    ("llama", {"rope_scaling": {"rope_type": "llama3"} | LLAMA3}, {"rope_type": "llama3"} | LLAMA3),
    ("mistral", {"rope_theta": 1000000.0}, None),
    ("qwen2", {"rope_theta": 1000000.0}, None),
    ("phi", {"rope_theta": 20000.0, "partial_rotary_factor": 0.4}, None),
    ("stablelm", {"partial_rotary_factor": 0.5}, None),
    (
        "phi3",
        {"original_max_position_embeddings": 64, "rope_scaling": {"type": "longrope"} | LONG},
        {"type": "longrope"} | LONG,
    ),
]


@pytest.mark.parametrize(("backbone", "settings", "scaling"), ROTATIONS)
def test_both_forms_are_one_model(backbone, settings, scaling):
    family = next(family for family in known_families().values() if family.backbone_type == backbone)
    config = family.load_config_class().from_dict(SIZES | settings)
    written = json.loads(config.to_json_string())
    both = with_older_fields(written)
    assert not set(FIELDS[backbone]) - both.keys()
    assert both["rope_theta"] == settings.get("rope_theta", 10000.0)
    assert both["rope_scaling"] == scaling
    assert both["torch_dtype"] == "bfloat16"
    if "partial_rotary_factor" in settings:
        assert both["partial_rotary_factor"] == settings["partial_rotary_factor"]
    assert without_older_fields(both) == written
    assert with_older_fields(both) == both
    # transformers 5 keeps the old name of the type next to the new one.
    stock = type(config).from_dict(both).rope_parameters
    assert {name: value for name, value in stock.items() if name != "type"} == {
        name: value for name, value in config.rope_parameters.items() if name != "type"
    }


def test_a_config_of_an_earlier_release_is_left_alone():
    older = {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "float16"}
    assert with_older_fields(older) == without_older_fields(older) == older
    assert with_older_fields(older | {"dtype": "float32"})["torch_dtype"] == "float32"


def test_identity_does_not_depend_on_the_older_fields(tiny_llava, tmp_path):
    """Scores of a folder that was written without them stay valid."""
    before = digest(open_checkpoint(tiny_llava))
    for file in tiny_llava.iterdir():
        (tmp_path / file.name).symlink_to(file)
    values = with_older_fields(json.loads((tmp_path / "config.json").read_text()))
    for changes, same in (({}, True), ({"rope_theta": 1.0}, False)):
        (tmp_path / "config.json").unlink()
        (tmp_path / "config.json").write_text(json.dumps(values | changes))
        assert (digest(open_checkpoint(tmp_path)) == before) is same
