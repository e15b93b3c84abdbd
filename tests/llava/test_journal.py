"""A journal outlives a kill at any byte; only one of another run is refused."""

import pytest

from llava.journal import Journal
from visual_region.importance import ScoreError


def test_cut_off_at_any_byte(tmp_path):
    output, settings = tmp_path / "s.json", {"model": "a"}
    whole = Journal(output, settings)
    whole.add({"layer 0": 1.5})
    whole.add({"layer 1": [2.5]})
    content = whole.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        whole.path.write_bytes(content[:cut])
        again = Journal(output, settings)
        assert len(again.entries) == max(sum(end <= cut for end in ends) - 1, 0), cut
        again.add({"layer 2": 3.5})
        again.add({"layer 3": 4.5})
        assert Journal(output, settings).entries == again.entries
        whole.path.unlink(missing_ok=True)


def test_zeros_of_a_power_failure_are_nothing(tmp_path):
    (tmp_path / "s.json.journal").write_bytes(b"\0" * 100)
    assert Journal(tmp_path / "s.json", {}).entries == {}


def test_others_are_refused_and_kept(tmp_path):
    Journal(tmp_path / "s.json", {"model": "a"}).add({"layer 0": 1})
    with pytest.raises(ScoreError, match="begun with another model"):
        Journal(tmp_path / "s.json", {"model": "b"})
    (tmp_path / "t.json.journal").write_text("my diary")
    with pytest.raises(ScoreError, match="is no journal of a measurement"):
        Journal(tmp_path / "t.json", {})
    assert (tmp_path / "t.json.journal").read_text() == "my diary"
