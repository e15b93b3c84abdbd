"""The record of decoder layers: every number in it is of the model before any removal."""

import json
from types import SimpleNamespace

import pytest

from llava.checkpoint.record import LayerRecord, RecordError, joint_record

TUNED = LayerRecord({}, 8).tuned("sparse-uniform:3", (0, 4, 7))


def test_nothing_recorded():
    record = LayerRecord.of({"num_hidden_layers": 4})
    assert (record.spec, record.layers, record.kept, record.healed) == (None, None, None, None)
    assert (record.removed, record.reverted, record.region) == ([], [], ())
    assert (record.original, record.original_depth, record.depth) == ([0, 1, 2, 3], 4, 4)


def test_what_a_training_records():
    assert dict(TUNED.values) == {"tune_layers": "sparse-uniform:3", "layers": [0, 4, 7], "num_layers": 8}
    assert TUNED.region == (0, 4, 7)


def test_two_removals_then_a_training():
    once = TUNED.cut([0, 2, 3, 4, 6, 7])
    assert (once.kept, once.removed, once.depth) == ([0, 2, 3, 4, 6, 7], [1, 5], 6)
    assert once.region == (0, 3, 5)
    twice = once.cut([1, 2, 3, 4, 5])
    assert (twice.original, twice.removed, twice.original_depth) == ([2, 3, 4, 6, 7], [0, 1, 5], 8)
    assert twice.region == (2, 4)
    again = twice.tuned("0-1", (0, 1))
    assert (again.layers, again.region, again.original_depth) == ([2, 3], (0, 1), 8)
    assert again.removed == [0, 1, 5]


def test_layers_set_back_leave_the_region_until_they_train_again():
    back = TUNED.cut([0, 4, 5, 7]).set_back([1, 2])
    assert back.reverted == [4, 5]
    assert back.region == (0, 3)
    assert back.set_back([1]).values == back.values
    trained = back.tuned("1", (1,))
    assert (trained.reverted, trained.region) == ([5], (1,))
    assert "reverted_layers" not in trained.tuned("all", range(4)).values


def test_a_distillation_keeps_the_region():
    before = TUNED.cut([0, 4, 5, 7]).set_back([0, 2])
    after = before.tuned("0,1", (0, 1)).after_healing(before, teacher="/t", temperature=2.0, ce_weight=0.5)
    assert after.layers == before.layers
    assert after.healed == {"layers": [0, 4], "teacher": "/t", "temperature": 2.0, "ce_weight": 0.5}
    assert after.reverted == [5]


@pytest.mark.parametrize("make", [dict, lambda **values: SimpleNamespace(**values)])
def test_written_to_a_config_and_read_back(make):
    config = make(num_hidden_layers=6)
    record = TUNED.cut([0, 2, 3, 4, 6, 7]).set_back([3])
    record.put(config)
    assert LayerRecord.of(config) == record
    values = config["visual_region"] if isinstance(config, dict) else config.visual_region
    assert json.loads(json.dumps(values)) == values


def test_a_record_written_before_is_read():
    """As folders of earlier releases hold it; without num_layers the depth before removals follows from the rest."""
    record = LayerRecord({"kept_layers": [0, 3, 5], "removed_layers": [1, 2, 4], "layers": [0, 3]}, 3)
    assert (record.original_depth, record.region) == (6, (0, 1))


def test_joint_record():
    other = LayerRecord({}, 8).tuned("1-2", (1, 2))
    joint = joint_record([other, TUNED])
    assert (joint.layers, joint.spec, joint.original_depth) == ([0, 1, 2, 4, 7], "1-2,sparse-uniform:3", 8)
    nothing = LayerRecord({}, 8)
    assert joint_record([nothing, nothing]).values == {}
    with pytest.raises(RecordError, match="different layers were removed"):
        joint_record([TUNED, TUNED.cut([0, 1])])
