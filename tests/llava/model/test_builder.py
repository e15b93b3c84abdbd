"""Every kind of folder loads by its files; what does not fit is told before it is wrong."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, IncompleteSnapshotError, LocalEntryNotFoundError
from huggingface_hub.utils import httpx
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llava.checkpoint.adapter import strip_wrapper_prefix
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import BASE_FILE, base_values
from llava.checkpoint.opened import CheckpointError
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import get_template
from llava.eval.answering.answerer import Answerer
from llava.eval.answering.questions import Question
from llava.model.builder import load_pretrained_model, load_tokenizer
from llava.model.export import export
from llava.model.multimodal_encoder.builder import VisionTowerError
from llava.train.train import train

REQUEST = httpx.Request("GET", "https://huggingface.co")
IDS = torch.tensor([[1, 5, -200, 7, 9]])


def pixels():
    return torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def logits(path, base=None, **kwargs):
    model = load_pretrained_model(str(path), str(base) if base else None, device="cpu", **kwargs)[1]
    with torch.no_grad():
        return model(input_ids=IDS, images=pixels()).logits


@pytest.fixture(scope="module")
def lora(tiny, tmp_path_factory):
    """A LoRA of layers 0 and 3 whose weights are far from zero."""
    output = tmp_path_factory.mktemp("lora") / "out"
    flags = {
        "model_name_or_path": tiny.llm,
        "version": "v1",
        "data_path": tiny.data,
        "image_folder": tiny.images,
        "vision_tower": tiny.tower,
        "mm_vision_select_layer": -2,
        "mm_projector_type": "mlp2x_gelu",
        "image_aspect_ratio": "pad",
        "output_dir": output,
        "max_steps": 3,
        "per_device_train_batch_size": 3,
        "save_strategy": "steps",
        "save_steps": 3,
        "learning_rate": 5e-2,
        "lora_enable": True,
        "lora_r": 4,
        "lora_alpha": 8,
        "tune_layers": "0,3",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    train(argv=[text for name, value in flags.items() for text in (f"--{name}", str(value))])
    return output


def as_shards(folder, suffix, parts=3):
    """Rewrites a folder's weights as an index and shards, safetensors or .bin."""
    weights = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names, index = sorted(weights), {}
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    for i in range(parts):
        file = f"{stem}-{i + 1:05d}-of-{parts:05d}.{suffix}"
        part = {name: weights[name] for name in names[i::parts]}
        index |= dict.fromkeys(part, file)
        if suffix == "safetensors":
            save_file(part, folder / file, {"format": "pt"})
        else:
            torch.save(part, folder / file)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(tiny_llava, tmp_path, suffix):
    folder = shutil.copytree(tiny_llava, tmp_path / "copy")
    as_shards(folder, suffix)
    assert torch.equal(logits(folder), logits(tiny_llava))
    assert base_values(open_checkpoint(folder).tensors) == base_values(open_checkpoint(tiny_llava).tensors)
    shard = next(folder.glob(f"*-00002-*.{suffix}"))
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=f"not whole: {shard.name}"):
        logits(folder)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"its index names {shard.name}, which are missing"):
        logits(folder)


def test_whole_bin_of_a_released_folder(tiny_llava, tmp_path):
    """LLaVA-1.5 was released as .bin with model_type "llava", and without the settings that were added later."""
    folder = shutil.copytree(tiny_llava, tmp_path / "released")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "llava"
    for name in ("tokenizer_padding_side", "tokenizer_model_max_length", "visual_region", "mm_patch_merge_type"):
        config.pop(name, None)
    config |= {"mm_resampler_type": None, "freeze_mm_vision_resampler": False}
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(folder), logits(tiny_llava))
    model = load_pretrained_model(str(folder), device="cpu")[1]
    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["freeze_mm_vision_resampler"] is False
    assert "mm_resampler_type" in saved


def test_base_is_recorded_and_checked(tiny, lora, tmp_path):
    for folder in (lora, lora / "checkpoint-3"):
        assert (folder / BASE_FILE).is_file()
        assert torch.equal(logits(folder), logits(folder, tiny.llm))
    other = shutil.copytree(tiny.llm, tmp_path / "other")
    weights = {name: value.clone() for name, value in load_file(other / "model.safetensors").items()}
    save_file({name: value.bfloat16() for name, value in weights.items()}, other / "model.safetensors")
    assert open_checkpoint(lora, other).base.path == other
    weights["model.layers.2.mlp.up_proj.weight"] *= 1.1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"another base than .*1 of \d+ tensors differ, first model\.layers\.2"):
        logits(lora, other)
    config = json.loads((other / "config.json").read_text()) | {"intermediate_size": 128}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="intermediate_size 64 against 128"):
        logits(lora, other)


def test_lora_on_a_merged_model_is_not_put_on_the_plain_one(tiny, lora, train_flags, tmp_path):
    _, model, _, _ = load_pretrained_model(str(lora), device="cpu")
    merged = tmp_path / "merged"
    model.save_pretrained(merged)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tiny.llm / name, merged)
    flags = {"lora_enable": True, "lora_r": 2, "tune_layers": "1", "max_steps": 1}
    train(argv=train_flags(tmp_path / "second", model_name_or_path=merged, mm_projector_type=None, **flags))
    logits(tmp_path / "second")
    with pytest.raises(CheckpointError, match="a LoRA trained on top of a LLaVA"):
        logits(tmp_path / "second", tiny.llm)
    with pytest.raises(CheckpointError, match=r"LoRA checkpoint itself; merge it first"):
        logits(tmp_path / "second", lora)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_merge_is_rounded_once(tiny, lora, dtype):
    """float32 sums, cast at the end; a merge in half precision differs in many weights."""
    exact = load_pretrained_model(str(lora), device="cpu", dtype=torch.float32)[1].state_dict()
    merged = load_pretrained_model(str(lora), device="cpu", dtype=dtype)[1].state_dict()
    assert all(torch.equal(merged[name], exact[name].to(dtype)) for name in exact if "vision_tower" not in name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_trained_projector_is_rounded_once(tiny, lora, tmp_path, dtype):
    """Also on a base that is stored in bfloat16: upstream reads the projector into the wanted dtype at once."""
    base = shutil.copytree(tiny.llm, tmp_path / "base")
    weights = {name: value.bfloat16() for name, value in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    found = load_pretrained_model(str(lora), str(base), device="cpu", dtype=dtype)[1].state_dict()
    trained = torch.load(lora / "non_lora_trainables.bin")
    assert len(trained) == 4
    for name, value in trained.items():
        assert value.dtype is torch.float32
        assert torch.equal(found[strip_wrapper_prefix(name)], value.to(dtype)), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frequencies_of_rotary_positions_are_not_rounded(tiny_llava, lora, dtype):
    """Also after the whole model was loaded in half precision; its weights are."""
    for folder in (tiny_llava, lora):
        exact = load_pretrained_model(str(folder), device="cpu", dtype=torch.float32)[1].model.rotary_emb.inv_freq
        model = load_pretrained_model(str(folder), device="cpu", dtype=dtype)[1]
        assert torch.equal(model.model.rotary_emb.inv_freq, exact)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_a_device_without_room(tiny_llava, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("transformers.PreTrainedModel.to", full)
    with pytest.raises(CheckpointError, match="does not fit into the memory of cpu; take 4 bits"):
        load_pretrained_model(str(tiny_llava), device="cpu")


def test_how_a_run_computed_does_not_round_its_base(tiny, lora, tmp_path):
    """The config of a LoRA that was trained in bfloat16, or on a base in 4 bits, says so; the base is read as it is."""
    folder = shutil.copytree(lora, tmp_path / "lora", ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": "bfloat16", "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(folder), logits(lora))


def test_hub_ids(tiny_llava, monkeypatch):
    """What is no folder here is asked of the hub; a name that is neither says both."""
    import llava.checkpoint.folder

    asked = []
    monkeypatch.setattr(llava.checkpoint.folder, "list_repo_files", lambda name: [])
    monkeypatch.setattr(
        llava.checkpoint.folder, "snapshot_download", lambda name, **kw: asked.append(name) or str(tiny_llava)
    )
    assert torch.equal(logits("somebody/llava"), logits(tiny_llava))
    assert asked == ["somebody/llava"]
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="nobody/llava does not exist: it is not a local folder, and the hub has"):
        logits("nobody/llava")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of folders by id; what is downloaded lies in `cache`, each file when it is asked for."""
    folders, cache = {}, tmp_path / "cache"

    def copy(name, allow, ignore=()):
        def left(folder, files):
            return [f for f in files if not any(fnmatch(f, p) for p in allow) or any(fnmatch(f, p) for p in ignore)]

        return Path(shutil.copytree(folders[name], cache / name, ignore=left, dirs_exist_ok=True))

    def download(name, allow_patterns, ignore_patterns, **options):
        return str(copy(name, allow_patterns, ignore_patterns))

    def load(function, path, *arguments, **options):
        found = copy(path, ["*.json", "*.safetensors"]) if path in folders else path
        model = function(found, *arguments, **options)
        (model[0] if isinstance(model, tuple) else model).name_or_path = str(found)
        return model

    monkeypatch.setattr("llava.checkpoint.folder.snapshot_download", download)
    monkeypatch.setattr(
        "llava.checkpoint.folder.list_repo_files", lambda name: [path.name for path in folders[name].iterdir()]
    )
    monkeypatch.setattr("llava.model.missing_weights.without_code", load)
    return SimpleNamespace(folders=folders, cache=cache)


@pytest.mark.parametrize("shard", ["100GB", "40KB"])
def test_a_base_from_the_hub(hub, tiny, train_flags, tmp_path, shard):
    """Only config and tokenizer are there before the model is loaded; of a base in shards also their index."""
    source = hub.folders["org/llm"] = tmp_path / "llm"
    shutil.copytree(tiny.llm, source, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(tiny.llm).save_pretrained(source, max_shard_size=shard)
    assert (len(list(source.glob("*.safetensors"))) > 1) == (shard == "40KB")
    (source / "pytorch_model.bin").write_bytes(b"the same again")
    assert open_checkpoint("org/llm", weights=False).depth == 6
    assert not list(hub.cache.glob("org/llm/*.safetensors"))
    flags = {"model_name_or_path": "org/llm", "lora_enable": True, "lora_r": 2, "max_steps": 1}
    for name in ("fresh", "again"):
        train(argv=train_flags(tmp_path / name, **flags))
        settings = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == "org/llm", "not its folder in the cache of this machine"
    assert (tmp_path / "fresh" / BASE_FILE).read_bytes() == (tmp_path / "again" / BASE_FILE).read_bytes()
    shutil.rmtree(hub.cache)
    assert torch.equal(logits(tmp_path / "fresh"), logits(tmp_path / "fresh", tiny.llm))
    assert not (hub.cache / "org/llm/pytorch_model.bin").exists(), "one format is enough"
    with pytest.raises(CheckpointError, match="was trained on another base"):
        logits(tmp_path / "fresh", other_base(tiny.llm, tmp_path / "other"))


def test_a_stock_llava_from_the_hub(hub, tiny_llava, tmp_path):
    source = hub.folders["org/llava"] = tmp_path / "stock"
    tokenizer, model, processor, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    export(model, tokenizer, processor, source, get_template("vicuna_v1"))
    assert open_checkpoint("org/llava", weights=False).tower == "org/llava"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            GatedRepoError("403", response=httpx.Response(403, request=httpx.Request("GET", "https://x"))),
            "is gated: accept its cond",
        ),
        (httpx.ReadTimeout(""), r"the download was interrupted \(ReadTimeout\); the same command goes on"),
        (LocalEntryNotFoundError("nothing"), "does not exist: it is not a local folder, and the hub has nothing"),
    ],
)
def test_what_the_hub_says(tmp_path, monkeypatch, error, words):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("llava.checkpoint.folder.list_repo_files", fail)
    monkeypatch.setattr("llava.checkpoint.folder.snapshot_download", fail)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint("org/llm")


def test_what_is_needed_is_enough_without_the_hub(tiny_llava, tmp_path, monkeypatch):
    """Offline, the hub's client misses files that nobody needs, such as the weights in another format."""
    folder = shutil.copytree(tiny_llava, tmp_path / "snapshot")

    def fail(*arguments, **options):
        raise IncompleteSnapshotError("mm_projector.bin is missing", str(folder))

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("llava.checkpoint.folder.list_repo_files", lambda name: [])
    monkeypatch.setattr("llava.checkpoint.folder.snapshot_download", fail)
    assert torch.equal(logits("org/llava"), logits(tiny_llava))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is not whole"):
        open_checkpoint("org/llava")


def other_base(source, folder):
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_tower_that_lacks_weights(tiny, tiny_llava, tmp_path):
    tower = shutil.copytree(tiny.tower, tmp_path / "tower")
    weights = load_file(tower / "model.safetensors")
    for part, is_used in (("post_layernorm", False), ("layers.0.self_attn.q_proj.weight", True)):
        left = {name: value for name, value in weights.items() if part not in name}
        assert len(left) < len(weights)
        save_file(left, tower / "model.safetensors", {"format": "pt"})
        if is_used:
            with pytest.raises(CheckpointError, match=r"tower .*tower lacks weights, first .*q_proj\.weight; copy it"):
                logits(tiny_llava, vision_tower=str(tower))
        else:
            assert torch.equal(logits(tiny_llava, vision_tower=str(tower)), logits(tiny_llava))


def test_folders_that_are_not_there_or_not_whole(tiny, tiny_llava, tmp_path, monkeypatch):
    """The folder and its file are named, before a weight of the language model is read."""
    monkeypatch.setattr(
        "llava.model.builder.from_pretrained_whole", lambda *more, **kw: pytest.fail("weights were read")
    )
    with pytest.raises(CheckpointError, match=r"^checkpoint /no/folder does not exist: there is no such folder$"):
        logits("/no/folder")
    with pytest.raises(CheckpointError, match=r"config\.json is a file; give the folder of the model"):
        logits(tiny_llava / "config.json")
    tower = shutil.copytree(tiny.tower, tmp_path / "tower")
    weights = (tower / "model.safetensors").read_bytes()
    for size in (0, 5, len(weights) // 2):
        (tower / "model.safetensors").write_bytes(weights[:size])
        with pytest.raises(CheckpointError, match=r"tower .*tower is not whole: model\.safetensors .*; copy it again"):
            logits(tiny_llava, vision_tower=str(tower))
    (tower / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"vision tower .*tower has no preprocessor_config\.json"):
        logits(tiny_llava, vision_tower=str(tower))


def test_a_folder_without_a_readable_tokenizer_is_named(tiny, tmp_path):
    folder = shutil.copytree(tiny.llm, tmp_path / "model")
    for file in folder.glob("token*.json"):
        file.write_text("{")
    with pytest.raises(ValueError, match=r"^the tokenizer of .*model cannot be read \(.*; copy its files again"):
        load_tokenizer(folder)
    for file in [*folder.glob("token*"), *folder.glob("vocab*")]:
        file.unlink()
    with pytest.raises(ValueError, match=r"^.*model has no tokenizer \(none of tokenizer\.json, tokenizer\.model"):
        load_tokenizer(folder)


def test_merged_equals_unmerged(tiny, lora):
    from peft import PeftModel

    from llava.model.builder import add_trained_weights, load_base

    checkpoint = open_checkpoint(lora)
    model = load_base(checkpoint.base, checkpoint.model_config(), torch.float32)
    add_trained_weights(model, checkpoint)
    model.get_vision_tower().load_model(dtype=torch.float32)
    plain = model(input_ids=IDS, images=pixels()).logits
    unmerged = PeftModel.from_pretrained(model, str(lora)).eval()
    with torch.no_grad():
        expected = unmerged(input_ids=IDS, images=pixels()).logits
    assert (expected - plain).abs().max() > 1e-2
    torch.testing.assert_close(logits(lora), expected, atol=1e-4, rtol=0)


def test_lora_weights_without_a_place_are_refused(tiny, lora, tmp_path):
    folder = shutil.copytree(lora, tmp_path / "lora", ignore=shutil.ignore_patterns("checkpoint-*"))
    weights = load_file(folder / "adapter_model.safetensors")
    extra = "base_model.model.model.vision_tower.vision_tower.encoder.layers.0.self_attn.q_proj.lora_A.weight"
    save_file(weights | {extra: torch.zeros(4, 24)}, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights that its base has no place for.*vision tower"):
        logits(folder)


def test_lora_folder_without_projector_or_config(tiny, tiny_llava, lora, tmp_path, capsys):
    """Upstream's checkpoint-N holds the LoRA alone; on a plain base nothing can be said, on a LLaVA aloud."""
    folder = shutil.copytree(lora, tmp_path / "lora", ignore=shutil.ignore_patterns("checkpoint-*", BASE_FILE))
    for name in ("config.json", "non_lora_trainables.bin"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match="its projector was never written"):
        logits(folder, tiny.llm)
    logits(folder, tiny_llava)
    assert "the projector is its base's" in capsys.readouterr().err


def test_lora_without_a_config_on_a_trained_tower(tiny_llava, lora, tmp_path):
    """The tower is its base's, also if the LoRA's folder says nothing of it (upstream's checkpoint-N)."""
    base = trained_tower(tiny_llava, tmp_path / "base")
    folder = shutil.copytree(lora, tmp_path / "lora", ignore=shutil.ignore_patterns("checkpoint-*", BASE_FILE))
    for name in ("config.json", "non_lora_trainables.bin"):
        (folder / name).unlink()
    towers = [
        load_pretrained_model(*map(str, path), device="cpu")[1].get_vision_tower() for path in ([base], [folder, base])
    ]
    for one, other in zip(*(tower.parameters() for tower in towers), strict=True):
        assert torch.equal(one, other)


def test_tower_that_is_not_here(tiny_llava, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = shutil.copytree(tiny_llava, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text()) | {"mm_vision_tower": "/somebody/elses/tower"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(VisionTowerError, match="give --vision-tower the tower's folder here"):
        logits(folder)
    assert torch.equal(logits(folder, vision_tower=str(tiny.tower)), logits(tiny_llava))


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_text_needs_no_tower_at_all(tiny_llava, lora, tmp_path, kind):
    ids = IDS[IDS != -200][None]
    source = tiny_llava if kind == "full" else lora
    with torch.no_grad():
        expected = load_pretrained_model(str(source), device="cpu")[1](input_ids=ids).logits
    folder = shutil.copytree(source, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text()) | {"mm_vision_tower": "/nowhere/tower"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(VisionTowerError, match="/nowhere/tower"):
        load_pretrained_model(str(folder), device="cpu")
    _, model, processor, _ = load_pretrained_model(str(folder), device="cpu", text_only=True)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, expected)
    assert processor is None
    assert model.get_vision_tower() is None


def trained_tower(source, folder):
    """A copy of a LLaVA whose tower was trained."""
    _, model, _, _ = load_pretrained_model(str(source), device="cpu")
    with torch.no_grad():
        for parameter in model.get_vision_tower().parameters():
            parameter += 0.1
    model.config.unfreeze_mm_vision_tower = True
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)
    return folder


def test_trained_tower_wins_over_the_published_one(tiny_llava, tiny, tmp_path):
    _, model, _, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    with torch.no_grad():
        for parameter in model.get_vision_tower().parameters():
            parameter += 0.1
        expected = model(input_ids=IDS, images=pixels()).logits
    folder = trained_tower(tiny_llava, tmp_path / "trained")
    torch.testing.assert_close(logits(folder), expected)
    # The folder that the published tower is in is one thing, its weights are another (LLaVA#1533).
    torch.testing.assert_close(logits(folder, vision_tower=str(tiny.tower)), expected)
    weights = load_file(folder / "model.safetensors")
    save_file({n: v for n, v in weights.items() if "vision_tower" not in n}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds no tower weights"):
        logits(folder)


def test_contradicting_generation_config_does_not_stop_saving(tiny_llava, tmp_path):
    """Vicuna's: greedy, with temperature and top_p (LLaVA#1144)."""
    folder = shutil.copytree(tiny_llava, tmp_path / "copy")
    values = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "bos_token_id": 1, "eos_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(values))
    load_pretrained_model(str(folder), device="cpu")[1].save_pretrained(tmp_path / "saved")


def test_marks_of_older_checkpoints(tiny_llava, tmp_path):
    folder = shutil.copytree(tiny_llava, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text()) | {"mm_use_im_start_end": True}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer, model, _, _ = load_pretrained_model(str(folder), device="cpu")
    start, end = tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"])
    assert model.get_input_embeddings().weight.shape[0] > max(start, end) >= 600
    answerer = Answerer(model, tokenizer, None, get_template("v1"), tmp_path)
    ids = answerer.prompt_ids(Question(0, 0, "Where?", "0.png")).tolist()
    place = ids.index(IMAGE_TOKEN_INDEX)
    assert (ids[place - 1], ids[place + 1]) == (start, end), "evaluated as it was trained"


def test_names_of_weights_without_loading(tiny_llava):
    weights = open_checkpoint(tiny_llava).tensors
    state = load_file(tiny_llava / "model.safetensors")
    assert set(weights.by_name) == set(state)
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(weights[name].tensor(), state[name])
    assert torch.equal(weights[name].row(3), state[name][3])
