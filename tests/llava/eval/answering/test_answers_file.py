import json
import subprocess
import sys

import pytest

from llava.eval.answering.answers_file import AnswersFile, record_path
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.launch import launch
from llava.eval.answering.questions import Question
from llava.eval.answering.shards import merge, part_path
from llava.journal import JournalError

QUESTIONS = [Question(i, i // 2, "a", None) for i in range(10)]


def line(i):
    return json.dumps({"question_id": i // 2, "text": "é" * i}, ensure_ascii=False)


def test_settings_that_differ_are_named(tmp_path):
    AnswersFile(tmp_path / "a.jsonl", {"model": "x", "top_p": None}).add({0: "x"})
    with pytest.raises(JournalError, match=r"another model, data file or settings \(model was 'x', now 'y'\)"):
        AnswersFile(tmp_path / "a.jsonl", {"model": "y", "top_p": None})
    with pytest.raises(JournalError, match=r"chunk was \[1, 0\], now \[2, 1\]"):
        AnswersFile(tmp_path / "a.jsonl", {"model": "x", "top_p": None}, (2, 1))


def test_every_cut_of_a_journal_is_taken_up_or_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)
    answers = AnswersFile(tmp_path / "whole.jsonl", {"s": 1})
    answers.add({i: line(i) for i in range(4)})
    answers.close()
    whole = answers.journal.read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path = tmp_path / "a.jsonl"
        (tmp_path / "a.jsonl.journal").write_bytes(whole[:cut])
        again = AnswersFile(path, {"s": 1})
        assert sorted(again.lines) == list(range(max(0, sum(end < cut for end in ends) - 1)))
        again.add({i: line(i) for i in range(10) if i not in again.lines})
        again.finish(QUESTIONS)
        assert path.read_text(encoding="utf-8").split("\n") == [*map(line, range(10)), ""]


def test_damage_in_the_middle_is_refused(tmp_path):
    answers = AnswersFile(tmp_path / "a.jsonl", {})
    answers.add({i: line(i) for i in range(4)})
    rows = answers.journal.read_bytes().split(b"\n")
    answers.close()
    answers.journal.write_bytes(b"\n".join([*rows[:2], rows[2][:9], *rows[3:]]))
    with pytest.raises(JournalError, match="line 3 is damaged; delete it"):
        AnswersFile(tmp_path / "a.jsonl", {})


def test_two_processes_cannot_write_one_file(tmp_path):
    answers = AnswersFile(tmp_path / "a.jsonl", {})
    answers.add({0: line(0)})
    other = (
        f"from llava.eval.answering.answers_file import AnswersFile\nAnswersFile({str(tmp_path / 'a.jsonl')!r}, {{}})"
    )
    result = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
    assert "another process is writing" in result.stderr


def test_a_finished_file_is_known_again(tmp_path):
    answers = AnswersFile(tmp_path / "a.jsonl", {"s": 1})
    assert not answers.finished_before(QUESTIONS)
    answers.add({i: line(i) for i in range(10)})
    answers.finish(QUESTIONS)
    assert AnswersFile(tmp_path / "a.jsonl", {"s": 1}).finished_before(QUESTIONS)
    assert not AnswersFile(tmp_path / "a.jsonl", {"s": 2}).finished_before(QUESTIONS)
    assert not AnswersFile(tmp_path / "a.jsonl", {"s": 1}).finished_before(QUESTIONS[:9])
    (tmp_path / "a.jsonl").write_text("cut")
    assert not AnswersFile(tmp_path / "a.jsonl", {"s": 1}).finished_before(QUESTIONS)


def test_a_journal_next_to_a_finished_file_hides_nothing(tmp_path, capsys):
    """One process was stopped, and several finished the file from their own parts."""
    begun = AnswersFile(tmp_path / "a.jsonl", {"s": 1})
    begun.add({0: line(0)})
    begun.close()
    answers = AnswersFile(tmp_path / "b.jsonl", {"s": 1})
    answers.add({i: line(i) for i in range(10)})
    answers.finish(QUESTIONS)
    for name in ("{}.jsonl", "{}.run.json"):
        (tmp_path / name.format("b")).rename(tmp_path / name.format("a"))
    again = AnswersFile(tmp_path / "a.jsonl", {"s": 1})
    assert not again.finished_before(QUESTIONS[:9])
    assert again.finished_before(QUESTIONS)
    assert "a.jsonl.journal is removed: " in capsys.readouterr().out
    assert not begun.journal.exists()


@pytest.mark.parametrize("cut", [1, 2, 5, 25, 60, 1000])
def test_a_finished_file_that_was_cut_is_taken_up(tmp_path, monkeypatch, capsys, cut):
    """A torn last line counted as a line, and the scorer stumbled over it for ever."""
    monkeypatch.setattr("os.fsync", lambda file: None)
    path = tmp_path / "a.jsonl"
    answers = AnswersFile(path, {"s": 1})
    answers.add({i: line(i) for i in range(10)})
    answers.finish(QUESTIONS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    left = whole[:-cut].count(b"\n")
    again = AnswersFile(path, {"s": 1})
    assert not again.finished_before(QUESTIONS)
    assert sorted(again.lines) == list(range(left))
    assert f"has {left} whole lines where its record says 10; {left} of its answers are kept" in capsys.readouterr().out
    again.close()
    # They are kept for good: a crash now loses nothing.
    again = AnswersFile(path, {"s": 1})
    assert sorted(again.lines) == list(range(left))
    again.add({i: line(i) for i in range(left, 10)})
    again.finish(QUESTIONS)
    assert path.read_bytes() == whole
    assert AnswersFile(path, {"s": 1}).finished_before(QUESTIONS)


def test_of_a_damaged_file_no_answer_goes_to_another_question(tmp_path):
    path = tmp_path / "a.jsonl"
    answers = AnswersFile(path, {})
    answers.add({i: line(i) for i in range(10)})
    answers.finish(QUESTIONS)
    rows = path.read_text().splitlines()
    for damaged, kept in (
        ([*rows[:3], *rows[4:]], 3),
        ([*rows[:5], "[1]", *rows[6:]], 5),
        ([*rows[:5], "{", *rows[6:]], 5),
        ([*rows, rows[9]], 10),
    ):
        path.write_text("".join(row + "\n" for row in damaged))
        again = AnswersFile(path, {})
        assert not again.finished_before(QUESTIONS)
        assert sorted(again.lines) == list(range(kept))
        again.close()
        again.journal.unlink(missing_ok=True)


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "b.run.json").mkdir()
    for path, words in (
        ("folder", r"folder: .*folder is a folder; give the name of a file"),
        ("b.jsonl", r"b.run.json is a folder"),
        ("file/a.jsonl", r"the folder .*file cannot be made \(File exists\)"),
        ("file/deeper/a.jsonl", r"cannot be made \(Not a directory\)"),
    ):
        with pytest.raises(EvaluationError, match=words):
            AnswersFile(tmp_path / path, {})
        with pytest.raises(EvaluationError, match=words):
            launch("no.module", ["--answers-file", str(tmp_path / path)], 2)


def write_parts(tmp_path, count, skipped=(), **settings):
    parts = []
    for i in range(count):
        asked = [q for q in QUESTIONS if q.index % count == i]
        kept = [q for q in asked if q.index not in skipped]
        parts.append(part_path(tmp_path / "merge.jsonl", count, i))
        answers = AnswersFile(parts[-1], {"s": 1} | settings, (count, i))
        answers.add({q.index: line(q.index) for q in kept})
        left_out = [{"index": q.index, "question_id": q.question_id, "image": "x"} for q in asked if q not in kept]
        answers.finish(kept, {"model_id": "m", "questions": 10, "skipped": left_out})
    return parts


@pytest.mark.parametrize(("count", "skipped"), [(1, ()), (3, ()), (4, (5, 9)), (12, (0,))])
def test_parts_become_the_whole_in_the_order_of_the_questions(tmp_path, count, skipped):
    parts = write_parts(tmp_path, count, skipped)
    output = tmp_path / "merge.jsonl"
    assert merge(parts, output) == 10 - len(skipped)
    kept = [q for q in QUESTIONS if q.index not in skipped]
    assert output.read_text(encoding="utf-8") == "".join(line(q.index) + "\n" for q in kept)
    record = json.loads(record_path(output).read_text())
    assert [entry["index"] for entry in record["skipped"]] == sorted(skipped)
    assert AnswersFile(output, {"s": 1}).finished_before(kept)


def test_what_is_not_whole_is_not_joined(tmp_path):
    parts = write_parts(tmp_path, 3)
    output = tmp_path / "merge.jsonl"
    with pytest.raises(EvaluationError, match="are chunks 0 of 3, 2 of 3; needed are all 3"):
        merge([parts[0], parts[2]], output)
    with pytest.raises(EvaluationError, match="needed are all 3"):
        merge([*parts, parts[1]], output)
    whole = parts[2].read_text(encoding="utf-8")
    parts[2].write_text(whole[:-4], encoding="utf-8")
    with pytest.raises(EvaluationError, match="has 2 whole lines where its record says 3; start its process again"):
        merge(parts, output)
    parts[2].unlink()
    parts[1].rename(tmp_path / "elsewhere.jsonl")
    journal = parts[1].with_name(parts[1].name + ".journal")
    journal.write_text('{"settings": {}}\n{"index": 1, "line": ""}\n{"ind')
    with pytest.raises(EvaluationError, match=r"3_1.*stopped after 1 answers.*3_2.*does not exist"):
        merge(parts, output)
    assert not output.exists()


def test_parts_of_two_runs_are_not_joined(tmp_path):
    one, two = write_parts(tmp_path / "one", 2), write_parts(tmp_path / "two", 2, model="other")
    with pytest.raises(EvaluationError, match=r"made with other settings than .* \(model\)"):
        merge([one[0], two[1]], tmp_path / "merge.jsonl")


@pytest.mark.parametrize("row", ["[0, 5]", '["x", "{}"]', '[0, "{cut"]', '[0, "[]"]'])
def test_a_journal_that_holds_no_answers_is_refused(tmp_path, row):
    head = json.dumps({"settings": {"chunk": [1, 0]}})
    (tmp_path / "a.jsonl.journal").write_text(f"{head}\n{row}\n")
    for _ in range(2):
        with pytest.raises(EvaluationError, match=r"^1 entry of .*a\.jsonl\.journal .* is not an answer to a question"):
            AnswersFile(tmp_path / "a.jsonl", {})
