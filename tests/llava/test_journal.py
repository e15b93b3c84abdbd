"""A journal outlives a kill at any byte; only one of another run is refused; only one process has it at a time."""

import subprocess
import sys

import pytest

from llava.eval.answering.answers_file import AnswersFile
from llava.journal import Journal, JournalError


def test_cut_off_at_any_byte(tmp_path):
    output, settings = tmp_path / "s.json", {"model": "a"}
    whole = Journal(output, settings)
    whole.add({"layer 0": 1.5})
    whole.add({"layer 1": [2.5]})
    whole.close()
    content = whole.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        whole.path.write_bytes(content[:cut])
        again = Journal(output, settings)
        assert len(again.entries) == max(sum(end <= cut for end in ends) - 1, 0), cut
        again.add({"layer 2": 3.5})
        again.add({"layer 3": 4.5})
        again.close()
        third = Journal(output, settings)
        assert third.entries == again.entries
        third.close()
        whole.path.unlink(missing_ok=True)


def test_zeros_of_a_power_failure_are_nothing(tmp_path):
    (tmp_path / "s.json.journal").write_bytes(b"\0" * 100)
    assert Journal(tmp_path / "s.json", {}).entries == {}


def test_others_are_refused_and_kept(tmp_path):
    Journal(tmp_path / "s.json", {"model": "a"}).add({"layer 0": 1})
    with pytest.raises(JournalError, match="begun with another model"):
        Journal(tmp_path / "s.json", {"model": "b"})
    (tmp_path / "t.json.journal").write_text("my diary")
    with pytest.raises(JournalError, match=r"t\.json\.journal cannot be continued: it is not a journal"):
        Journal(tmp_path / "t.json", {})
    assert (tmp_path / "t.json.journal").read_text() == "my diary"


def test_damage_and_a_second_writer_are_refused(tmp_path):
    first = Journal(tmp_path / "s.json", {}, "--report-file")
    first.add({"layer 0": 1, "layer 1": 2})
    with pytest.raises(JournalError, match=r"another process is writing .*; wait .* another --report-file"):
        Journal(tmp_path / "s.json", {}, "--report-file")
    first.close()
    rows = first.path.read_bytes().split(b"\n")
    first.path.write_bytes(b"\n".join([rows[0], rows[1][:-1], *rows[2:]]))
    with pytest.raises(JournalError, match="line 2 is damaged; delete it to start again, or use another --output"):
        Journal(tmp_path / "s.json", {})
    first.remove()
    assert not list(tmp_path.iterdir())


def test_journals_of_before_are_continued(tmp_path):
    """Scores: the digest alone in the first line. Answers: an object per line."""
    digest = Journal(tmp_path / "new", {"model": "a"}).digest
    (tmp_path / "s.json.journal").write_text(f'{{"settings": "{digest}"}}\n["layer 0", 1]\n')
    assert Journal(tmp_path / "s.json", {"model": "a"}).entries == {"layer 0": 1}
    (tmp_path / "a.jsonl.journal").write_text('{"settings": {"chunk": [1, 0]}}\n{"index": 3, "line": "{}"}\n')
    assert AnswersFile(tmp_path / "a.jsonl", {}).lines == {3: "{}"}


def test_an_entry_that_does_not_fit_on_the_disk_leaves_no_part(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "s.json", {})
    journal.add({"layer 0": 1})
    before = journal.path.read_bytes()

    class Full:
        def __init__(self, file):
            self.tell, self.truncate, self.seek, self._file = file.tell, file.truncate, file.seek, file

        def write(self, data):
            if len(data) < 5:
                raise OSError(28, "No space left on device")
            return self._file.write(data[:3])

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_file", Full(journal._file))
        with pytest.raises(OSError, match="the disk is full"):
            journal.add({"layer 1": 2})
    assert journal.path.read_bytes() == before
    journal.add({"layer 2": 3})
    journal.close()
    assert Journal(tmp_path / "s.json", {}).entries == {"layer 0": 1, "layer 2": 3}


TAKING_TURNS = """
import os, sys, time
from llava.journal import Journal, JournalError
held, turns, end = sys.argv[1] + ".held", 0, time.monotonic() + 60
while turns < 40 and time.monotonic() < end:
    try:
        journal = Journal(sys.argv[1], {})
    except JournalError:
        continue
    os.close(os.open(held, os.O_CREAT | os.O_EXCL))
    if turns % 2:
        journal.add({"layer 0": 1})
    os.remove(held)
    journal.remove() if turns % 4 == 1 else journal.close()
    turns += 1
sys.exit(turns < 40)
"""


def test_one_process_at_a_time(tmp_path):
    """Each takes and leaves the journal 40 times; one that finds a trace of another in it fails."""
    words = [sys.executable, "-c", TAKING_TURNS, str(tmp_path / "s.json")]
    processes = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate()[1] for process in processes]
    assert not any(process.returncode for process in processes), errors


def test_a_second_process_is_refused_before_the_first_entry(tmp_path):
    """It need not load a model to learn of the first."""
    first = Journal(tmp_path / "s.json", {})
    with pytest.raises(JournalError, match="another process is writing"):
        Journal(tmp_path / "s.json", {})
    first.close()
    assert not list(tmp_path.iterdir())


def test_a_program_that_fails_before_the_first_entry_leaves_nothing(tmp_path):
    code = "import sys; from llava.journal import Journal; journal = Journal(sys.argv[1], {}); sys.exit('no model')"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "s.json")], capture_output=True).returncode == 1
    assert not list(tmp_path.iterdir())
