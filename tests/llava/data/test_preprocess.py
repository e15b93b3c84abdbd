"""Ids and labels equal upstream's, wherever upstream did not mask a whole sample by its own bug."""

import json

import pytest

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import TemplateError, conv_templates, get_template
from llava.data.preprocess import preprocess
from llava.data.records import open_records
from llava.model.builder import load_tokenizer
from llava.tokenization import check_template

# Upstream drops these: an empty answer, the separator or the role in the text, nobody answering.
DROPPED_BY_UPSTREAM = {"e_empty_answer", "e_sep_in_text", "e_role_in_text"}


@pytest.mark.parametrize("version", ["v1", "plain", "llava_llama_2"])
def test_equals_upstream(parity, version):
    runs = [run for run in json.loads((parity / "a_preprocess.json").read_text()) if run["version"] == version]
    assert runs
    compared = 0
    for run in runs:
        folder = {"tiny/llava-tiny": "llava-tiny", "tiny/tok_legacy": "tok_legacy"}[run["tokenizer"]]
        tokenizer = load_tokenizer(parity / folder)
        records = {record.id: record for record in open_records(parity / f"{run['file']}.json")}
        for sample in run["samples"]:
            ids, labels = preprocess(
                records[sample["id"]].turns,
                tokenizer,
                conv_templates[version],
                int(sample["has_image"]),
                run["max_len"],
            )
            assert ids.tolist() == sample["input_ids"], (run["tokenizer"], sample["id"])
            if any(label != IGNORE_INDEX for label in sample["labels"]):
                assert labels.tolist() == sample["labels"], (run["tokenizer"], sample["id"])
                compared += 1
    assert compared >= 16 * len(runs) / 2


def test_samples_that_upstream_dropped_keep_their_labels(parity):
    tokenizer = load_tokenizer(parity / "llava-tiny")
    for record in open_records(parity / "edge.json"):
        _, labels = preprocess(record.turns, tokenizer, conv_templates["v1"], len(record.images))
        answered = any(answer for answer in record.turns[1::2])
        assert (labels != IGNORE_INDEX).any() == answered, record.id


@pytest.mark.parametrize("name", [n for n in conv_templates if "plain" not in n])
def test_prompt_is_what_is_trained(parity, name):
    """The generation prompt is a prefix of the training text, and the rest up to the stop is supervised."""
    template = conv_templates[name]
    whole = template.copy()
    whole.append_message(whole.roles[0], "Q")
    whole.append_message(whole.roles[1], "A")
    prompt = template.copy()
    prompt.append_message(prompt.roles[0], "Q")
    prompt.append_message(prompt.roles[1], None)
    assert whole.get_prompt().startswith(prompt.get_prompt())
    supervised = "".join(segment.text for segment in whole.segments() if segment.supervised)
    assert supervised.strip().startswith("A")
    assert supervised.endswith(template.stop)


def test_several_images_in_one_sample(parity):
    tokenizer = load_tokenizer(parity / "llava-tiny")
    ids, _ = preprocess(["<image>\n<image>\nWhich?", "left"], tokenizer, conv_templates["v1"], 2)
    assert (ids == IMAGE_TOKEN_INDEX).sum() == 2
    ids, _ = preprocess(["<image> a <image>", "left"], tokenizer, conv_templates["v1"], 1)
    assert (ids == IMAGE_TOKEN_INDEX).sum() == 1


def test_template_that_does_not_fit(parity):
    tokenizer = load_tokenizer(parity / "llava-tiny")
    check_template("v1", tokenizer)
    with pytest.raises(TemplateError, match=r"chatml.*<\|im_end\|>.*fit it: v1"):
        check_template("chatml", tokenizer)
    with pytest.raises(TemplateError, match="known: v1"):
        get_template("v2")
