import json

import pytest

from llava.eval.answering.subset import write_subset
from llava.eval.benchmarks import bbh
from llava.eval.benchmarks.preparing import Options
from tests.made_benchmarks import BBH, rows_of


def test_subset_is_the_same_every_time_and_grows(tmp_path):
    bbh.prepare(BBH.parent, tmp_path, Options(check_counts=False))
    source = tmp_path / "questions.jsonl"
    assert write_subset(source, 1, tmp_path / "one.jsonl") == (27, 54)
    assert write_subset(source, 1, tmp_path / "again.jsonl") == (27, 54)
    assert write_subset(source, 5, tmp_path / "all.jsonl") == (54, 54)
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "again.jsonl").read_text()
    assert (tmp_path / "all.jsonl").read_text() == source.read_text()
    one = rows_of(tmp_path / "one.jsonl")
    assert len({row["category"] for row in one}) == 27
    everything = rows_of(source)
    assert [everything.index(row) for row in one] == sorted(everything.index(row) for row in one)
    # A category's draw does not depend on which others are there.
    part = tmp_path / "part.jsonl"
    part.write_text("".join(line for line in source.read_text().splitlines(True) if '"snarks/' in line))
    write_subset(part, 1, tmp_path / "part_one.jsonl")
    assert rows_of(tmp_path / "part_one.jsonl") == [row for row in one if row["category"] == "snarks"]
    with_image = tmp_path / "images.jsonl"
    with_image.write_text(json.dumps({"question_id": 1, "text": "a\u2028", "image": "b.png"}) + "\n")
    assert write_subset(with_image, None, tmp_path / "bare.jsonl", images=False) == (1, 1)
    assert rows_of(tmp_path / "bare.jsonl") == [{"question_id": 1, "text": "a\u2028"}]
    with pytest.raises(ValueError, match="--per-category is 0"):
        write_subset(source, 0, tmp_path / "none.jsonl")
