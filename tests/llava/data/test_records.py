import json
import pickle

import pytest

from llava.data.records import DataFormatError, open_records

GOOD = {"id": "a", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}


def write(tmp_path, content):
    path = tmp_path / "data.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_round_trip(tmp_path):
    items = [dict(GOOD, id=i, image=f"{i}.png") for i in range(5000)]
    items[3].pop("image")
    items[4]["image"] = ["x.png", "y.png"]
    items[5]["conversations"] = [{"from": "gpt", "value": "hello"}, *GOOD["conversations"]]
    records = open_records(write(tmp_path, items), tmp_path / "cache")
    assert len(records) == 5000
    assert records[4999].id == "4999"
    assert records[3].images == ()
    assert records[4].images == ("x.png", "y.png")
    assert records[5].turns == ("hi", "ho")
    assert records.words[5] == 3
    assert len(pickle.dumps(records)) < 500
    assert pickle.loads(pickle.dumps(records))[7] == records[7]


def test_read_once(tmp_path):
    path = write(tmp_path, [GOOD])
    first = open_records(path, tmp_path / "cache")
    stamp = first.path.stat().st_mtime_ns
    assert open_records(path, tmp_path / "cache").path.stat().st_mtime_ns == stamp
    path.write_text(json.dumps([GOOD, GOOD]))
    assert len(open_records(path, tmp_path / "cache")) == 2


def test_json_lines(tmp_path):
    path = write(tmp_path, "\n".join(json.dumps(GOOD) for _ in range(3)))
    assert len(open_records(path, tmp_path / "cache")) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hello", "begins with 'hello'"),
        ([], "no samples"),
        ([GOOD, 3], "item 1 is a int"),
        ([GOOD, {"id": "b"}], r"item 1 \(id 'b'\) has no list 'conversations'"),
        ([{"conversations": [{"from": "user", "value": "x"}]}], "item 0 turn 0 is from 'user'; allowed: human, gpt"),
        ([{"conversations": [{"from": "human", "value": 3}]}], "turn 0 is not an object"),
        ([{"conversations": [GOOD["conversations"][0]] * 2}], "turn 1 is from 'human' where 'gpt' should speak"),
        ([dict(GOOD, image=5)], "'image' is 5"),
        (json.dumps([GOOD, GOOD])[:-40], "item 1 is not valid JSON"),
        (json.dumps([GOOD])[:-1], "ends inside the list"),
    ],
)
def test_not_llava_json(tmp_path, content, words):
    with pytest.raises(DataFormatError, match=words):
        open_records(write(tmp_path, content), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))
