"""What every program writes: config.json and tokenizer are right for transformers 4.37 to 4.45 too; modes."""

import json
import os
import shutil
import stat

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.tokenizer import load_tokenizer
from llava.tokenization import encoder_for
from tests.conftest import REPOSITORY
from tests.scripts.test_weight_scripts import run_script

THETA = 500_000.0
FOLDERS = ("full", "full/checkpoint-1", "lora", "lora/checkpoint-1", "stage1", "stage1/checkpoint-1", "merged")
FOLDERS += ("average", "pruned", "pruned-merged", "pruned-lora", "pruned-base", "reverted", "reverted-lora", "healed")
FOLDERS += ("exported",)
FIELDS = json.loads((REPOSITORY / "tests/data/older_fields.json").read_text())
"""model_type -> the fields that the config classes of transformers 4.37.2 and 4.45.2 read."""
DERIVED = {"llava": {"ignore_index", "vocab_size"}}
"""Those that follow from others, or have one value in every checkpoint."""
TEXTS = ("Hi  Hello", "def f(x):\n    return  x", "end.  Next", "red\t\t  line   please")


@pytest.fixture(scope="module")
def written(tiny, train_flags, tmp_path_factory):
    """The folders that every program writes, with umask 027; the base has theta 500000 and Llama's pieces of blanks."""
    root = tmp_path_factory.mktemp("written")
    base = shutil.copytree(tiny.llm, root / "llm")
    config = json.loads((base / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = THETA
    (base / "config.json").write_text(json.dumps(config))
    proto = sentencepiece_model_pb2.ModelProto.FromString((base / "tokenizer.model").read_bytes())
    for number, count in enumerate((2, 4, 8)):
        # In front of all that is merged, as in Llama's.
        proto.pieces[260 + number].piece, proto.pieces[260 + number].score = "▁" * count, -1e9
    (base / "tokenizer.model").write_bytes(proto.SerializeToString())
    before = os.umask(0o027)
    try:
        write_all(root, base, tiny, train_flags)
    finally:
        os.umask(before)
    return root


def write_all(root, base, tiny, train_flags):
    from llava.train.train import train
    from visual_region.__main__ import main

    def command(*words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["visual_region", *map(str, words)])
            main()

    def trained(name, **flags):
        flags |= {"model_name_or_path": base, "max_steps": 1, "save_strategy": "steps", "save_steps": 1}
        train(argv=train_flags(root / name, **flags))

    trained("full", tune_layers="0,3")
    trained("lora", tune_layers="0,3", lora_enable=True, lora_r=4)
    trained("stage1", tune_mm_mlp_adapter=True, version="plain", data_path=tiny.captions)
    full, lora, pruned = root / "full", root / "lora", root / "pruned"
    run_script("merge_lora_weights", "--model-path", lora, "--save-model-path", root / "merged")
    run_script("average_weights", "--model-paths", full, root / "merged", "--output", root / "average")
    run_script("extract_mm_projector", "--model-path", full, "--output", root / "mm_projector.bin")
    command("prune", "--model-path", full, "--layers", "1", "--output", pruned)
    command("prune", "--model-path", lora, "--layers", "1", "--output", root / "pruned-merged")
    apart = ["--base-output", root / "pruned-base"]
    command("prune", "--model-path", lora, "--layers", "1", "--output", root / "pruned-lora", *apart)
    # The folder records its backbone.
    command("revert", "--model-path", full, "--layers", "0", "--output", root / "reverted")
    command("revert", "--model-path", lora, "--backbone", base, "--layers", "0", "--output", root / "reverted-lora")
    command("export", "--model-path", full, "--output", root / "exported")
    data = ["--data-path", tiny.data, "--image-folder", tiny.images, "--steps", 1, "--batch-size", 2]
    heal = ["--model-path", pruned, "--teacher", full, *data, "--lora-r", 0, "--dtype", "fp32"]
    command("heal", *heal, "--output", root / "healed", "--", "--use_cpu", "True")


def configs_in(config, model_type):
    """A config and those inside it, each with the list of its fields."""
    yield config, set(FIELDS[model_type]) - DERIVED.get(model_type, set())
    for name in ("text_config", "vision_config"):
        if name in config:
            yield from configs_in(config[name], config[name]["model_type"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_config_has_the_fields_of_earlier_releases(written, folder):
    config = json.loads((written / folder / "config.json").read_text())
    model_type = "llava" if "text_config" in config else "llama"
    for part, fields in configs_in(config, model_type):
        assert not fields - part.keys()
        assert part["torch_dtype"] == part["dtype"] == "float32"
        if "rope_parameters" in part:
            assert (part["rope_theta"], part["rope_scaling"]) == (THETA, None)
    # Both forms are read as one, here and by transformers.
    base = written / ("pruned-base" if folder == "pruned-lora" else "llm")
    ours = open_checkpoint(written / folder, base).model_config()
    assert ours.rope_parameters == {"rope_theta": THETA, "rope_type": "default"}
    stock = type(ours).from_pretrained(written / folder)
    assert getattr(stock, "text_config", {}) or stock.rope_parameters == ours.rope_parameters


def test_a_training_records_its_base(written):
    for folder in ("full", "full/checkpoint-1", "lora", "lora/checkpoint-1", "stage1", "stage1/checkpoint-1"):
        opened = open_checkpoint(written / folder)
        assert opened.stored["_name_or_path"] == str(written / "llm")
        assert opened.base is None or opened.base.path == written / "llm"
    layer = "model.layers.0.mlp.up_proj.weight"
    reverted, base = (open_checkpoint(written / name).tensors[layer] for name in ("reverted", "llm"))
    assert reverted.same_bytes(base)


@pytest.mark.parametrize("folder", FOLDERS)
def test_ids_are_sentencepieces(written, folder):
    """Also in transformers itself, and from the tokenizer.model that upstream's loader takes."""
    place = written / folder
    assert (place / "tokenizer.model").read_bytes() == (written / "llm" / "tokenizer.model").read_bytes()
    expected = sentencepiece.SentencePieceProcessor(model_file=str(place / "tokenizer.model"))
    ours, stock = encoder_for(load_tokenizer(place)), AutoTokenizer.from_pretrained(place)
    for text in TEXTS:
        assert ours.encode(text)[0] == expected.encode(text)
        assert stock(text, add_special_tokens=False).input_ids == expected.encode(text)


def test_modes_are_the_umasks(written):
    modes = {
        str(path.relative_to(written)): stat.S_IMODE(path.stat().st_mode)
        for name in {folder.partition("/")[0] for folder in FOLDERS}
        for path in ((written / name), *(written / name).rglob("*"))
    }
    modes["mm_projector.bin"] = stat.S_IMODE((written / "mm_projector.bin").stat().st_mode)
    wrong = {name: oct(mode) for name, mode in modes.items() if mode != (0o750 if (written / name).is_dir() else 0o640)}
    assert not wrong


def test_an_export_has_the_file_of_processors_that_transformers_4_reads(written):
    values = json.loads((written / "exported/preprocessor_config.json").read_text())
    inside = json.loads((written / "exported/processor_config.json").read_text())["image_processor"]
    assert values["image_processor_type"] == inside["image_processor_type"].removesuffix("Pil") == "LlavaImageProcessor"
    assert values["do_pad"]
    assert {k: v for k, v in inside.items() if k != "image_processor_type"}.items() <= values.items()
