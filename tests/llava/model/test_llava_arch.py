"""Splicing image features into text, and what follows from it."""

import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model import label_loss
from llava.model.builder import load_pretrained_model

IMG = IMAGE_TOKEN_INDEX


@pytest.fixture(scope="module")
def model(tiny_llava):
    return load_pretrained_model(str(tiny_llava), device="cpu")[1]


def pixels(n):
    return torch.randn(n, 3, 28, 28, generator=torch.Generator().manual_seed(n))


def row(*ids):
    return torch.tensor([ids])


def prepare(model, ids, labels=None, mask=None, images=None, **kwargs):
    mask = torch.ones_like(ids) if mask is None else mask
    return model.prepare_inputs_labels_for_multimodal(ids, torch.zeros_like(ids), mask, None, labels, images, **kwargs)


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_of_different_length(model, side):
    images = pixels(2)
    ids = torch.tensor([[1, IMG, 5, 6, 7], [1, 8, IMG, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    labels = torch.tensor([[-100, -100, 5, 6, 7], [-100, 8, -100, -100, -100]])
    _, positions, new_mask, _, embeds, new_labels = prepare(model, ids, labels, mask, images, padding_side=side)
    features, embed = model.encode_images(images), model.get_input_embeddings()
    expected = [
        torch.cat([embed(torch.tensor([1])), features[0], embed(torch.tensor([5, 6, 7]))]),
        torch.cat([embed(torch.tensor([1, 8])), features[1]]),
    ]
    for i, vectors in enumerate(expected):
        length = len(vectors)
        where = slice(0, length) if side == "right" else slice(8 - length, 8)
        torch.testing.assert_close(embeds[i, where], vectors)
        assert new_mask[i].sum() == length
        assert new_mask[i, where].all()
        assert positions[i, where].tolist() == list(range(length))
    assert [label for label in new_labels[0].tolist() if label != IGNORE_INDEX] == [5, 6, 7]
    assert [label for label in new_labels[1].tolist() if label != IGNORE_INDEX] == [8]


def test_truncation(model):
    model.config.tokenizer_model_max_length = 6
    try:
        *_, embeds, labels = prepare(model, row(1, IMG, 5, 6, 7), row(1, -100, 5, 6, 7), images=pixels(1))
        assert embeds.shape[1] == 6
        assert labels.tolist() == [[1, -100, -100, -100, -100, 5]]
    finally:
        del model.config.tokenizer_model_max_length


@pytest.mark.parametrize("count", [0, 1, 3])
def test_numbers_must_match(model, count):
    ids = torch.tensor([[1, IMG, 5], [1, IMG, 6]])
    with pytest.raises(ValueError, match=r"images were given for 2 <image> tokens \(per row: \[1, 1\]\)"):
        prepare(model, ids, images=list(pixels(count)) if count else [])


def test_two_images_in_one_row_do_not_eat_the_next_rows(model):
    images = pixels(3)
    ids = torch.tensor([[1, IMG, IMG], [1, IMG, 5]])
    *_, embeds, _ = prepare(model, ids, images=images)
    features = model.encode_images(images)
    torch.testing.assert_close(embeds[0, 1:9], torch.cat([features[0], features[1]]))
    torch.testing.assert_close(embeds[1, 1:5], features[2])


def test_text_rows_with_and_without_dummies(model):
    """Upstream sends a dummy image for each text row; we need none; the result is the same."""
    ids = torch.tensor([[1, 5, 6], [1, IMG, 5]])
    images = pixels(2)
    ours = prepare(model, ids, images=images[1:])[4]
    upstreams = prepare(model, ids, images=images)[4]
    torch.testing.assert_close(ours, upstreams)


def test_image_tokens_without_images_are_refused(model):
    with pytest.raises(ValueError, match="no images were given"):
        model(input_ids=row(1, IMG, 5))
    with pytest.raises(ValueError, match="no images were given"):
        model.generate(row(1, IMG, 5))


def test_features_in_place_of_pixels(model):
    ids, images = row(1, IMG, 5, 6), pixels(1)
    features = model.get_vision_tower()(images)
    torch.testing.assert_close(
        model(input_ids=ids, images=images).logits, model(input_ids=ids, image_features=features).logits
    )


def test_label_only_logits_give_the_same_loss_and_gradients(model, monkeypatch):
    ids = torch.tensor([[1, IMG, 5, 6, 7], [1, 8, 9, 10, 11]])
    labels = torch.tensor([[-100, -100, -100, 6, 7], [-100, -100, 9, -100, 11]])
    results = []
    for setting in (False, True, "in chunks"):
        if setting == "in chunks":
            monkeypatch.setattr(label_loss, "LOGITS_AT_ONCE", 2 * model.vocab_size)
        model.label_only_logits = bool(setting)
        model.zero_grad()
        output = model(input_ids=ids, labels=labels, images=pixels(1), attention_mask=torch.ones_like(ids))
        output.loss.backward()
        gradient = model.model.layers[2].self_attn.q_proj.weight.grad.clone()
        results.append((output.loss.detach(), gradient))
    model.label_only_logits = False
    for found in results[1:]:
        torch.testing.assert_close(found, results[0])


def test_batch_without_labels_has_loss_zero(model):
    model.label_only_logits = True
    ids = row(1, 5, 6)
    loss = model(input_ids=ids, labels=torch.full_like(ids, IGNORE_INDEX)).loss
    model.label_only_logits = False
    assert loss.item() == 0
    loss.backward()


def test_cached_generation_equals_uncached(model):
    ids, images = torch.tensor([[1, IMG, 5, 6], [1, 7, IMG, 9]]), pixels(2)
    kwargs = {"images": images, "do_sample": False, "max_new_tokens": 12}
    assert torch.equal(model.generate(ids, use_cache=True, **kwargs), model.generate(ids, use_cache=False, **kwargs))


def test_the_head_multiplies_contiguous_states(tiny_llava):
    """The last position of a batch is a slice; on it torch copied the head's weight once a row."""
    from llava.model.builder import load_pretrained_model

    model = load_pretrained_model(str(tiny_llava), device="cpu")[1]
    seen = []
    model.lm_head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].is_contiguous()))
    ids = torch.tensor([[1, 5, 6], [1, 7, 8]])
    last = model(input_ids=ids, logits_to_keep=1).logits
    torch.testing.assert_close(last[:, 0], model(input_ids=ids).logits[:, -1])
    assert seen == [True, True]
