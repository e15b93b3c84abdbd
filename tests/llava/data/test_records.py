import io
import json
import pickle

import pytest

from llava.data.json_items import json_items
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


def test_captions_are_told_from_other_samples(tmp_path):
    """As the turns say that the trainer reads, over several parts of the file."""
    talks = [("<image>\nWhat?", "A line."), ("What?", "<image>"), ("<image>",), ("<image>", "A line.", "And?")]
    items = [
        {
            "conversations": [
                {"from": ("human", "gpt")[(i + leading) % 2], "value": text} for i, text in enumerate(turns)
            ]
        }
        for _ in range(1100)
        for talk in talks
        for leading, turns in enumerate((talk, ("<image>", *talk)))
    ]
    records = open_records(write(tmp_path, items), tmp_path / "cache")
    spoken = [record.turns for record in records]
    assert records.are_captions.tolist() == [len(turns) == 2 and "<image>" in turns[0] for turns in spoken]
    assert records.are_captions.sum() == 2 * 1100


@pytest.mark.parametrize("images", [["x.png"], ["x.png", "y.png"], []])
def test_words_and_images_are_counted_per_turn(tmp_path, images):
    """The turns are looked at together; the numbers are those of each turn by itself."""
    texts = ["<image> never counts: it is the first gpt's", "<image>a<image>\u2028b\x1cc", "<im", "age> é\u00a0ü ", " "]
    turns = [{"from": ("gpt", "human")[i % 2], "value": text} for i, text in enumerate(texts)]
    records = open_records(write(tmp_path, [{"conversations": turns, "image": images}]), tmp_path / "cache")
    assert records.words[0] == sum(len(text.split()) for text in texts)
    assert records.image_tokens[0] == (2 if len(images) > 1 else 1)
    assert records[0].turns == tuple(texts[1:])


@pytest.mark.parametrize(
    ("change", "where"), [({"id": "\ud83d"}, "'id'"), ({"image": "a\udc00.png"}, "'image'"), ({}, "turn 1")]
)
def test_half_of_a_character_is_named_with_its_place(tmp_path, change, where):
    turns = [{"from": "human", "value": "é"}, {"from": "gpt", "value": "ok" if change else "x\ud83d"}]
    with pytest.raises(DataFormatError, match=f"item 1.*{where} holds half of a surrogate pair"):
        open_records(write(tmp_path, [GOOD, {"conversations": turns} | change]), tmp_path / "cache")


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
        ("", "it is empty"),
        (json.dumps([GOOD, GOOD])[:-40], "item 1 is not valid JSON"),
        (json.dumps([GOOD]) + "\n garbage", "text after the list, at line 2, column 2"),
        (json.dumps([GOOD]) + "[]", "text after the list, at line 1"),
        (f"[{json.dumps(GOOD)}\n  {json.dumps(GOOD)}]", "item 0 is not .* '{' follows it, .* at line 2, column 3"),
        (f"[{json.dumps(GOOD)}, ]", "item 1 is not valid JSON: .*line 1, column"),
        (
            f"[{json.dumps(GOOD)},\n,{json.dumps(GOOD)}]",
            "item 1 is not valid JSON: Expecting value at line 2, column 1",
        ),
        (f"{json.dumps(GOOD)},\n{json.dumps(GOOD)}", "item 1 is not valid JSON: Expecting value at line 1, column"),
        (f"[{json.dumps(GOOD)},\n{{'id': 1}}]", "item 1 is not valid JSON: .* at line 2, column 2"),
        (json.dumps([GOOD])[:-1], "ends inside the list"),
    ],
)
def test_not_llava_json(tmp_path, content, words):
    with pytest.raises(DataFormatError, match=words):
        open_records(write(tmp_path, content), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_file_is_read_in_parts(tmp_path, monkeypatch, size):
    """Items, places of errors and the end do not depend on how much is in memory."""
    monkeypatch.setattr("llava.data.json_items._READ_CHARS", size)
    rows = [dict(GOOD, id=f"{i}") for i in range(5)]
    for text in (json.dumps(rows, indent=1), json.dumps(rows) + "\n", "\n".join(map(json.dumps, rows))):
        assert list(json_items(io.StringIO(text))) == rows
    broken = json.dumps(rows, indent=1).replace('"id": "3"', '"id" "3"')
    with pytest.raises(ValueError, match="item 3") as error:
        list(json_items(io.StringIO(broken)))
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(broken)
    assert f"at line {expected.value.lineno}, column {expected.value.colno}" in str(error.value)


@pytest.mark.parametrize("broken", [50, 53, 99])
def test_the_first_error_is_reported(tmp_path, broken):
    """Of an item that is wrong and one that is not JSON, the first in the file."""
    lines = [json.dumps(GOOD)] * 100
    lines[broken], lines[60] = '{"id": "x"}', "{"
    with pytest.raises(DataFormatError, match=f"item {min(broken, 60)} "):
        open_records(write(tmp_path, "\n".join(lines)), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.arrow"))
