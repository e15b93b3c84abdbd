"""Every metric of the shared pass against the formula, written out sample by sample on whole tensors in float64."""

import math
from pathlib import Path

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    StableLmConfig,
)

from llava.conversation import get_template
from llava.data.records import open_records
from llava.mm_utils import process_image
from llava.model.builder import load_pretrained_model
from visual_region.importance.angular import AngleRecorder, angular_distance
from visual_region.importance.block_influence import CosineRecorder, block_influence
from visual_region.importance.image_attention import ImageAttentionRecorder, image_attention
from visual_region.importance.multimodal_bi import multimodal_bi
from visual_region.importance.samples import Reader, groups_of, open_samples
from visual_region.importance.sweep import Recorder, sweep
from visual_region.importance.tokens import ANSWER, IMAGE, PADDING, PROMPT, TokenBatch, count_kinds

PATH = "model.layers"


def measure(model, batches):
    """Rows of all samples in the order of their index: counts, cosines, angles, attention."""
    kept = {}
    recorders = [CosineRecorder(), AngleRecorder(), ImageAttentionRecorder()]
    for batch, numbers in sweep(model, batches, recorders, PATH):
        counts = count_kinds(batch.kinds)
        for row, index in enumerate(batch.samples):
            kept[index] = {"counts": counts[row]} | {name: value[row] for name, value in numbers.items()}
    rows = [kept[index] for index in sorted(kept)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def all_metrics(found):
    counts = found["counts"]
    return {
        "bi": block_influence(found[CosineRecorder.name], counts),
        "bi-answer": block_influence(found[CosineRecorder.name], counts, ("answer",)),
        "multimodal-bi": multimodal_bi(found[CosineRecorder.name], counts),
        "angular": angular_distance(found[AngleRecorder.name]),
        "angular-last": angular_distance(found[AngleRecorder.name], 1),
        "image-attention": image_attention(found[ImageAttentionRecorder.name], counts),
        "image-attention-prompt": image_attention(found[ImageAttentionRecorder.name], counts, ("prompt",)),
    }


def states_and_maps(model, **inputs):
    """Hidden states `(layers + 1, length, hidden)` and attention `(layers, heads, length, length)` of one row."""
    states = []
    decoder = model.model
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs: states.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        for module in decoder.layers
    ]
    handles.append(decoder.layers[-1].register_forward_hook(lambda _, __, output: states.append(output)))
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        maps = decoder(**inputs, use_cache=False, output_attentions=True).attentions
    model.config._attn_implementation = "sdpa"
    for handle in handles:
        handle.remove()
    return torch.stack([state[0].double() for state in states]), torch.stack([m[0].double() for m in maps])


def naive(rows):
    """All metrics from `(states, maps, kinds)` of each sample, by loops over tokens."""
    layers = len(rows[0][1])
    result = {}
    for i in range(layers):
        cosines = {kind: [] for kind in (IMAGE, PROMPT, ANSWER)}
        angles, last_angles, attention, from_prompt = [], [], [], []
        for states, maps, kinds in rows:
            for t, kind in enumerate(kinds):
                a, b = states[i, t], states[i + 1, t]
                cosines[kind].append((a @ b / (a.norm() * b.norm())).item())
            answers = [t for t, kind in enumerate(kinds) if kind == ANSWER]
            for place, kept in ((answers[0] - 1 if answers else -1, angles), (-1, last_angles)):
                a, b = states[i, place], states[i + 1, place]
                kept.append(math.acos(min(1.0, (a @ b / (a.norm() * b.norm())).item())) / math.pi)
            image = [t for t, kind in enumerate(kinds) if kind == IMAGE]
            if image:
                heads = len(maps[i])
                attention.append(maps[i][:, :, image].sum().item() / (len(image) * heads))
                prompt = [t for t, kind in enumerate(kinds) if kind == PROMPT]
                from_prompt.append(maps[i][:, prompt][:, :, image].sum().item() / (len(image) * heads))
        mean = lambda values: sum(values) / len(values)  # noqa: E731
        text = cosines[PROMPT] + cosines[ANSWER]
        layer = {
            "bi": 1 - mean(text + cosines[IMAGE]),
            "bi-answer": 1 - mean(cosines[ANSWER]),
            "multimodal-bi": 1 - (mean(cosines[IMAGE]) + mean(text)) / 2,
            "angular": mean(angles),
            "angular-last": mean(last_angles),
            "image-attention": mean(attention),
            "image-attention-prompt": mean(from_prompt),
        }
        for name, value in layer.items():
            result.setdefault(name, []).append(value)
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in result.items()}


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def reader(request, tiny, tiny_llava):
    tokenizer, model, processor, _ = load_pretrained_model(str(tiny_llava), dtype=request.param)
    return Reader(model, tokenizer, processor, get_template("v1"), tiny.images)


@pytest.fixture(scope="module")
def expected(reader, tiny):
    """The reference: each sample alone, its sequence put together by hand."""
    from llava.data.preprocess import preprocess

    model, rows = reader.model, []
    for record in open_records(tiny.data):
        ids, labels = preprocess(record.turns, reader.tokenizer, reader.template, len(record.images))
        embed = model.get_input_embeddings()
        vectors, kinds = [], []
        for token, label in zip(ids.tolist(), labels.tolist(), strict=True):
            if token == -200:
                from PIL import Image

                with Image.open(tiny.images / record.images[0]) as image:
                    pixels = process_image(image, reader.processor, "pad").unsqueeze(0).to(model.dtype)
                with torch.no_grad():
                    block = model.encode_images(pixels)[0]
                vectors.append(block)
                kinds += [IMAGE] * len(block)
            else:
                vectors.append(embed(torch.tensor([token])).detach())
                kinds.append(PROMPT if label == -100 else ANSWER)
        rows.append((*states_and_maps(model, inputs_embeds=torch.cat(vectors).unsqueeze(0)), kinds))
    return naive(rows)


@pytest.mark.parametrize(("batch_size", "side"), [(1, "right"), (5, "right"), (5, "left")])
def test_equals_the_formulas(reader, expected, tiny, batch_size, side, monkeypatch):
    samples = open_samples(str(tiny.data), None, 0)
    monkeypatch.setattr(reader.model.config, "tokenizer_padding_side", side, raising=False)
    found = all_metrics(measure(reader.model, reader.batches(samples, groups_of(samples, batch_size))))
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name].values(), values, atol=1e-6, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_batches_mix_text_and_images(reader, tiny):
    samples = open_samples(str(tiny.data), None, 0)
    batches = list(reader.batches(samples, groups_of(samples, 5)))
    has_image = [{bool(row) for row in (batch.kinds == IMAGE).any(1)} for batch in batches]
    assert {True, False} in has_image
    assert any((batch.kinds == PADDING).any() for batch in batches)
    assert sorted(i for batch in batches for i in batch.samples) == list(range(24))


def test_order_of_the_file_does_not_matter(reader, tiny, tmp_path):
    import json
    import random

    items = json.loads(tiny.data.read_text())
    random.Random(3).shuffle(items)
    (tmp_path / "shuffled.json").write_text(json.dumps(items))
    values = []
    for path in (tiny.data, tmp_path / "shuffled.json"):
        samples = open_samples(str(path), None, 0)
        values.append(all_metrics(measure(reader.model, reader.batches(samples, groups_of(samples, 4)))))
    for name, scores in values[0].items():
        torch.testing.assert_close(scores.values(), values[1][name].values(), atol=1e-9, rtol=0)


def test_captions_are_scored_as_the_model_learnt_them(reader, tiny, tmp_path):
    import json

    pairs = [{"image": f"{i}.png", "caption": [f"a red line {i}"]} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    found = []
    for path in (tmp_path / "pairs.jsonl", tiny.captions):
        samples = open_samples(str(path), None, 0)
        plain = Reader(reader.model, reader.tokenizer, reader.processor, get_template("plain"), tiny.images)
        found.append(all_metrics(measure(reader.model, plain.batches(samples, groups_of(samples, 4)))))
    for name in ("bi", "multimodal-bi", "image-attention"):
        torch.testing.assert_close(found[0][name].values(), found[1][name].values(), atol=1e-9, rtol=0)


SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": (LlamaConfig, {}),
    "mistral with a window": (MistralConfig, {"sliding_window": 4}),
    "qwen2": (Qwen2Config, {}),
    "phi3": (Phi3Config, {}),
    "phi": (PhiConfig, {}),
    "stablelm": (StableLmConfig, {}),
}


def tiny_model(name="llama", **changes):
    config_class, own = FAMILIES[name]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_class(**SMALL | own | changes)).eval()


def token_batch(rows, kinds, side):
    """Rows of ids of different length, padded."""
    longest = max(map(len, rows))
    pad = lambda row: torch.nn.functional.pad(  # noqa: E731
        row, (longest - len(row), 0) if side == "left" else (0, longest - len(row))
    )
    mask = torch.stack([pad(torch.ones_like(row)) for row in rows]).bool()
    inputs = {
        "input_ids": torch.stack([pad(row) for row in rows]),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
    return TokenBatch(inputs, torch.stack([pad(row) for row in kinds]), tuple(range(len(rows))))


def random_rows():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(1, 60, (length,), generator=generator) for length in (9, 6, 11)]
    kinds = [
        torch.tensor([PROMPT] + [IMAGE] * 4 + [PROMPT] * (len(row) - 7) + [ANSWER] * 2) if len(row) != 6 else None
        for row in rows
    ]
    kinds[1] = torch.tensor([PROMPT] * 6)
    return rows, kinds


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_decoder(name, side):
    """Grouped heads, rotary parts, fused projections, windows and parallel blocks; a text-only row in the batch."""
    model = tiny_model(name)
    rows, kinds = random_rows()
    before = model.config._attn_implementation
    found = all_metrics(measure(model, [token_batch(rows, kinds, side)]))
    assert model.config._attn_implementation == before
    reference = naive(
        [(*states_and_maps(model, input_ids=r.unsqueeze(0)), k.tolist()) for r, k in zip(rows, kinds, strict=True)]
    )
    for name_, values in reference.items():
        torch.testing.assert_close(found[name_].values(), values, atol=1e-6, rtol=1e-6)


def test_a_layer_made_the_identity_scores_zero():
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    found = all_metrics(measure(model, [token_batch(*random_rows(), "right")]))
    for name in ("bi", "multimodal-bi", "angular", "angular-last"):
        values = found[name].values()
        assert values[1] == pytest.approx(0, abs=1e-12)
        assert min(values[0], values[2]) > 0.01


def test_uniform_attention_has_a_closed_form():
    """With all scores equal, query j gives 1 / (j + 1) to each of tokens 0..j."""
    model = tiny_model()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.zero_()
    rows, kinds = random_rows()
    found = all_metrics(measure(model, [token_batch(rows, kinds, "left")]))["image-attention"]
    for row in (0, 2):
        length, image = len(rows[row]), range(1, 5)
        form = sum(1 / (j + 1) for t in image for j in range(t, length)) / len(image)
        torch.testing.assert_close(
            found.per_sample[row], torch.full((3,), form, dtype=torch.float64), atol=1e-6, rtol=0
        )
    assert found.per_sample[1].isnan().all()


def test_half_precision_is_summed_exactly():
    """In bfloat16 a column sum is not rounded to three digits: uniform attention still meets the closed form."""
    model = tiny_model().to(torch.bfloat16)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.zero_()
    rows, kinds = random_rows()
    found = all_metrics(measure(model, [token_batch(rows, kinds, "right")]))["image-attention"]
    form = sum(1 / (j + 1) for t in range(1, 5) for j in range(t, 11)) / 4
    torch.testing.assert_close(found.per_sample[2], torch.full((3,), form, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_watched_pass_is_the_plain_pass():
    """Watching changes no hidden state, and leaves nothing behind."""
    model = tiny_model()
    batch = token_batch(*random_rows(), "right")
    with torch.no_grad():
        before = model.model(**batch.inputs).last_hidden_state
    kept = []
    handle = model.model.register_forward_hook(lambda _, __, output: kept.append(output.last_hidden_state))
    measure(model, [batch])
    handle.remove()
    assert torch.equal(kept[0], before)
    assert not any(layer._forward_hooks for layer in model.model.layers)


def test_layers_on_several_devices():
    """accelerate moves a layer's input inside the layer, after the watching hook got it."""
    model = tiny_model()
    for part in (*model.model.layers[1:], model.model.norm):
        add_hook_to_module(part.to("meta"), AlignDevicesHook("meta"))
    devices = []

    class Devices(Recorder):
        name = "devices"

        def layer(self, index, entering, leaving):
            devices.append((entering.device.type, leaving.device.type))
            self.rows.append(torch.zeros(len(self.kinds), 1))

    for _ in sweep(model, [token_batch(*random_rows(), "right")], [Devices()], PATH):
        pass
    assert devices == [("cpu", "cpu"), ("meta", "meta"), ("meta", "meta")]


def test_nothing_is_left_behind_by_an_error():
    model = tiny_model()
    batch = token_batch(*random_rows(), "right")
    broken = TokenBatch({**batch.inputs, "position_ids": None, "attention_mask": "?"}, batch.kinds, batch.samples)
    with pytest.raises(Exception):  # noqa: B017
        measure(model, [broken])
    assert model.config._attn_implementation == "sdpa"
    assert not any(layer._forward_hooks for layer in model.model.layers)


def test_missing_images_are_counted_before_anything_is_loaded(tiny):
    with pytest.raises(ValueError, match=r"6 of 6 images are missing.*--image-folder"):
        open_samples(str(tiny.data), None, 0).check_images(Path("/nowhere"))


def test_a_caption_without_its_image(tmp_path):
    (tmp_path / "pairs.json").write_text('[{"image": "a.png", "caption": "a"}, {"caption": "b"}]')
    with pytest.raises(ValueError, match="item 1 is not an image-caption pair"):
        open_samples(str(tmp_path / "pairs.json"), None, 0)
