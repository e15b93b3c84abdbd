"""What the tests share: upstream's reference numbers, tiny models, and the prepared embedded default."""

import json
import os
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

pytest_plugins = ["tests.fixtures.bunny", "tests.fixtures.surgery"]

REPOSITORY = Path(__file__).parents[1]
TINY_LAYERS = 6


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Derived files of the tests stay out of the user's cache."""
    os.environ["LLAVA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    # Sums depend on the number of threads: processes that a test starts must have as many as the test itself.
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session")
def parity(tmp_path_factory) -> Path:
    """Numbers and files made by running upstream LLaVA on a CPU (fp32, transformers 4.37.2), unpacked."""
    folder = tmp_path_factory.mktemp("parity")
    with tarfile.open(REPOSITORY / "tests/data/parity.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    root = folder / "parity"
    llava, vicuna = root / "llava-tiny", root / "tiny-vicuna"
    (root / "tok_legacy" / "tokenizer.model").write_bytes((llava / "tokenizer.model").read_bytes())
    projector = load_file(llava / "projector.safetensors")
    (llava / "projector.safetensors").unlink()
    torch.save(projector, root / "mm_projector.bin")
    # The plain language model that upstream's LLaVA was built on: the same weights without the projector.
    shutil.copytree(llava, vicuna)
    (vicuna / "config.json").write_text((root / "tiny-vicuna-config.json").read_text())
    weights = parity_llm_weights()
    save_file(weights, vicuna / "model.safetensors", {"format": "pt"})
    save_file(weights | projector, llava / "model.safetensors", {"format": "pt"})
    return root


def parity_llm_weights() -> dict[str, torch.Tensor]:
    """The reference's language model, drawn again: a million random numbers need not lie in the repository.

    transformers 4.37.2 made it right after `torch.manual_seed(1234)`; modules draw their own start values first, in the
    order in which they are built.
    """
    hidden, inner, vocabulary, depth = 64, 128, 600, 4
    sizes = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
    sizes |= {"mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner), "mlp.down_proj": (inner, hidden)}
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        modules: dict[str, torch.nn.Module] = {"model.embed_tokens": torch.nn.Embedding(vocabulary, hidden)}
        for i in range(depth):
            for name, (width, out) in sizes.items():
                modules[f"model.layers.{i}.{name}"] = torch.nn.Linear(width, out, bias=False)
        weights = {f"{name}.weight": module.weight.data.normal_(0, 0.2) for name, module in modules.items()}
        head = torch.nn.Linear(hidden, vocabulary, bias=False)
        weights["lm_head.weight"] = head.weight.data.normal_(0, 0.2)
    weights["model.embed_tokens.weight"][0] = 0
    norms = [
        "model.norm",
        *(f"model.layers.{i}.{n}_layernorm" for i in range(depth) for n in ("input", "post_attention")),
    ]
    weights |= {f"{name}.weight": torch.ones(hidden) for name in norms}
    assert weights["lm_head.weight"][0, :2].tolist() == pytest.approx([-0.03367237746715546, -0.1719127893447876]), (
        "torch draws other random numbers than when the reference was made: put its weights into tests/data"
    )
    return weights


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The prepared playground; kept in .cache, as its making takes half a minute."""
    from playground.embedded.prepare import prepare

    root = REPOSITORY / ".cache" / "embedded"
    prepare(root, seed=0)
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, parity) -> SimpleNamespace:
    """A tiny random Llama, a tiny CLIP, and a small data set of images, conversations and text-only samples."""
    root = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=600,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=TINY_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.2,
            tie_word_embeddings=False,
        )
    )
    llm.save_pretrained(root / "llm")
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (root / "llm" / name).write_bytes((parity / "llava-tiny" / name).read_bytes())
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        )
    )
    tower.save_pretrained(root / "tower")
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        root / "tower"
    )

    images = root / "images"
    images.mkdir()
    generator = torch.Generator().manual_seed(1)
    for i in range(8):
        pixels = torch.randint(0, 255, (20 + i, 24, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(images / f"{i}.png")
    items = []
    for i in range(24):
        turns = [("Where is the red line?" + " please" * (i % 5), "left" if i % 2 else "at the top")]
        if i % 3 == 0:
            turns.append(("Is there a circle?", "No"))
        item = {"id": f"s{i}", "conversations": []}
        if i % 4:
            item["image"] = f"{i % 8}.png"
            turns[0] = (f"<image>\n{turns[0][0]}", turns[0][1])
        for question, answer in turns:
            item["conversations"] += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        items.append(item)
    (root / "data.json").write_text(json.dumps(items))
    captions = [
        {
            "id": f"c{i}",
            "image": f"{i}.png",
            "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": f"a red line {i}"}],
        }
        for i in range(8)
    ]
    (root / "captions.json").write_text(json.dumps(captions))
    return SimpleNamespace(
        root=root,
        llm=root / "llm",
        tower=root / "tower",
        images=images,
        data=root / "data.json",
        captions=root / "captions.json",
    )


@pytest.fixture(scope="session")
def train_flags(tiny):
    """Flags of a short run on the tiny parts; keywords override, None leaves a flag out."""

    def make(output: Path, **changes) -> list[str]:
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
            "max_steps": 4,
            "per_device_train_batch_size": 3,
            "evaluation_strategy": "no",
            "save_strategy": "no",
            "learning_rate": 1e-2,
            "weight_decay": "0.",
            "warmup_ratio": 0.03,
            "lr_scheduler_type": "cosine",
            "logging_steps": 1,
            "tf32": True,
            "model_max_length": 256,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
        } | changes
        return [text for name, value in flags.items() if value is not None for text in (f"--{name}", str(value))]

    return make


@pytest.fixture(scope="session")
def tiny_llava(tiny, tmp_path_factory) -> Path:
    """A whole tiny LLaVA folder with trained-looking weights, recorded region 0,3."""
    from llava.families import FAMILIES
    from llava.model.builder import load_tokenizer
    from visual_region.layers import LayerSelection

    family = FAMILIES["llava_llama"]
    torch.manual_seed(3)
    config = family.load_config_class().from_pretrained(tiny.llm)
    model = family.load_model_class().from_pretrained(tiny.llm, config=config)
    model.get_model().initialize_vision_modules(
        SimpleNamespace(
            vision_tower=str(tiny.tower),
            mm_vision_select_layer=-2,
            mm_vision_select_feature="patch",
            mm_projector_type="mlp2x_gelu",
            pretrain_mm_mlp_adapter=None,
        )
    )
    model.config.image_aspect_ratio = "pad"
    LayerSelection.parse("0,3", TINY_LAYERS).record.put(model.config)
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    model.save_pretrained(folder)
    load_tokenizer(tiny.llm).save_pretrained(folder)
    return folder
