"""Steps of text only: the projector is decayed and moved by its momentum, as with upstream's image of zeros.

The reference sends that image for every row of text, as upstream does, and applies AdamW by hand.
"""

import copy
import json

import pytest
import torch

from llava.data.sampler import EpochSampler
from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import train

RATE, DECAY, STEPS, ITEMS = 1e-3, 0.1, 8, 16
COMMON = {
    "learning_rate": RATE,
    "weight_decay": DECAY,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0,
    "max_grad_norm": 0,
    "max_steps": STEPS,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "lora_dropout": 0,
}
MODES = {
    "full": {"tune_layers": "1"},
    "lora": {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "tune_layers": "0,3"},
    "stage 1": {"tune_mm_mlp_adapter": True},
    "tower": {"tune_layers": "1", "unfreeze_vision_tower": True},
}


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory):
    """One image in four samples, so that some steps are of text only."""
    items = []
    for i in range(ITEMS):
        image = {"image": f"{i % 8}.png"} if i % 4 == 0 else {}
        question = ("<image>\n" if image else "") + f"Where is the line {i}?"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "left" if i % 3 else "at the top"}]
        items.append({"id": str(i), "conversations": turns, **image})
    file = tmp_path_factory.mktemp("text") / "data.json"
    file.write_text(json.dumps(items))
    return file


@pytest.fixture
def run(data, train_flags, tmp_path):
    """Trains; gives the model and the data set as they were before the first step, and the trainer."""

    def started(name, **changes):
        kept = {}

        def make(**arguments):
            kept["model"] = copy.deepcopy(arguments["model"])
            kept["trainer"] = LLaVATrainer(**arguments)
            return kept["trainer"]

        train(argv=train_flags(tmp_path / name, **COMMON | {"data_path": data} | changes), make_trainer=make)
        return kept["model"], kept["trainer"]

    return started


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def by_hand(model, dataset):
    """AdamW with beta 0.9 and 0.999, biases without decay; a row of text has an image of zeros, as upstream's."""
    parameters = trained(model)
    start = {name: p.detach().clone() for name, p in parameters.items()}
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = copy.deepcopy(first)
    order, text_steps = list(EpochSampler(ITEMS, 42)), 0
    for step in range(1, STEPS + 1):
        items = [dataset[i] for i in order[2 * step - 2 : 2 * step]]
        model.zero_grad()
        for item in items:
            pixels = torch.stack(item["images"]) if "images" in item else torch.zeros(1, 3, 28, 28)
            output = model(input_ids=item["input_ids"][None], labels=item["labels"][None], images=pixels)
            (output.loss / 2).backward()
        text_steps += not any("images" in item for item in items)
        with torch.no_grad():
            for name, p in parameters.items():
                if "bias" not in name and "norm" not in name:
                    p *= 1 - RATE * DECAY
                first[name] = 0.9 * first[name] + 0.1 * p.grad
                second[name] = 0.999 * second[name] + 0.001 * p.grad**2
                mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                p -= RATE * mean / (square.sqrt() + 1e-8)
    assert text_steps >= 3
    return {name: (start[name], p.detach()) for name, p in parameters.items()}


def assert_same(model, expected):
    """Each tensor's update is the expected one but for half a percent: Adam enlarges rounding of small gradients."""
    found = trained(model)
    assert found.keys() == expected.keys()
    for name, (start, end) in expected.items():
        # A key's bias changes no attention: its gradient is rounding, which Adam makes into whole steps.
        if "k_proj.bias" not in name:
            assert (found[name].detach() - end).norm() <= 5e-3 * (end - start).norm(), name


@pytest.mark.parametrize("mode", MODES)
def test_is_upstreams(run, tmp_path, mode):
    model, trainer = run("plain", **MODES[mode])
    expected = by_hand(model, trainer.train_dataset)
    assert any("mm_projector" in name for name in expected)
    assert any("vision_tower" in name for name in expected) == (mode == "tower")
    assert_same(trainer.model, expected)
    if mode == "lora":
        for name, changes in {
            "all logits": {"label_only_logits": False},
            "cached": {"vision_feature_cache": tmp_path / "features"},
            "checkpointed": {"gradient_checkpointing": True},
        }.items():
            assert_same(run(name, **MODES[mode], **changes)[1].model, expected)


@pytest.mark.parametrize(("changes", "sent"), [({}, "image_features"), ({"freeze_mm_mlp_adapter": True}, None)])
def test_a_frozen_tower_does_not_run_for_text(run, tiny, tmp_path, changes, sent):
    """Nothing is sent where nothing in front of the language model trains; the loss that is measured is the same."""
    items = [item for item in json.loads(tiny.data.read_text()) if "image" not in item]
    (tmp_path / "text.json").write_text(json.dumps(items))
    text = {"data_path": tmp_path / "text.json", "eval_data_path": tmp_path / "text.json", "eval_strategy": "steps"}
    _, trainer = run("text", **MODES["lora"], **text, **changes, evaluation_strategy=None, eval_steps=STEPS)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    assert batch.keys() & {"images", "image_features"} == ({sent} if sent else set())
    trainer.model.get_base_model().get_vision_tower().encode = None
    measured = trainer.evaluate()["eval_loss"]
    trainer.data_collator.empty = None
    assert trainer.evaluate()["eval_loss"] == measured
