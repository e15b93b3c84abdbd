"""Whole or not at all: what killed runs leave goes with the next run, and what others are writing stays."""

import errno
import os
import signal
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from llava.files import DiskFullError, folder_written_whole, remove_abandoned, write_json, written_whole
from llava.journal import Journal

WRITER = """
import sys
from llava.files import folder_written_whole, written_whole
write = {"file": written_whole, "folder": folder_written_whole}[sys.argv[1]]
with write(sys.argv[2]) as aside:
    (aside / "weights" if sys.argv[1] == "folder" else aside).write_text("half")
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def begun():
    """Starts a process that is in the middle of writing `path`."""
    processes = []

    def start(kind, path):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, kind, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "begun\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_run_left_goes_and_a_living_ones_stays(begun, tmp_path, kind):
    path = tmp_path / "out"
    killed, living = begun(kind, path), begun(kind, path)
    other = tmp_path / ".out2.abcdefgh.partial"
    other.mkdir()
    assert len(list(tmp_path.iterdir())) == 3
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    if kind == "file":
        with written_whole(path) as aside:
            aside.write_text("whole")
    else:
        with folder_written_whole(path) as aside:
            (aside / "weights").write_text("whole")
    left = {file.name for file in tmp_path.iterdir()} - {"out", other.name}
    assert len(left) == 1
    living.stdin.close()
    assert living.wait() == 0
    assert {file.name for file in tmp_path.iterdir()} == {"out", other.name}
    assert (path if kind == "file" else path / "weights").read_text() == "half"


def test_what_stood_before_is_kept_until_something_stands_again(tmp_path):
    """Killed between the two renames: the old folder is all that there is."""
    path, old = tmp_path / "out", tmp_path / ".out.abcd_123.old"
    old.mkdir()
    remove_abandoned(path)
    assert old.exists()
    with folder_written_whole(path):
        pass
    remove_abandoned(path)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_replaced_and_a_file_is_not(tmp_path):
    real, link, file = tmp_path / "real", tmp_path / "link", tmp_path / "file"
    real.mkdir()
    (real / "old").write_text("old")
    link.symlink_to(real)
    with folder_written_whole(link) as aside:
        (aside / "new").write_text("new")
    assert link.is_symlink()
    assert [found.name for found in real.iterdir()] == ["new"]
    file.write_text("precious")
    with pytest.raises(NotADirectoryError, match="is a file"), folder_written_whole(file):
        pass
    assert file.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "real"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(FileNotFoundError), folder_written_whole(path) as aside:
        aside.rmdir()
    assert (path / "old").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_modes_are_the_umasks(tmp_path, umask, file_mode, folder_mode):
    """safetensors and tempfile write for the owner only."""
    before = os.umask(umask)
    try:
        with folder_written_whole(tmp_path / "folder") as aside:
            (aside / "inner").mkdir()
            save_file({"a": torch.zeros(2)}, aside / "inner" / "model.safetensors")
        with written_whole(tmp_path / "weights") as aside:
            save_file({"a": torch.zeros(2)}, aside)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert all(mode == (folder_mode if path.is_dir() else file_mode) for path, mode in modes.items())


WEIGHTS = {str(i): torch.zeros(10_000) for i in range(20)}
WRITERS = {
    "json": lambda path: write_json(path, "x" * 800_000),
    "torch": lambda path: torch.save(WEIGHTS, path),
    "safetensors": lambda path: save_file(WEIGHTS, path),
    "bytes": lambda path: path.write_bytes(b"x" * 800_000),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk(small_disk, writer):
    """Whatever the library says of it: what was to be written, how much is missing, and nothing is left."""
    message = (
        r"disk is full: .*/disk/out needs more than 800.0 kB, and .*/disk has 30\d.\d kB free, 49\d.\d kB too little"
    )
    with pytest.raises(DiskFullError, match=message), folder_written_whole(small_disk / "out", 800_000) as aside:
        WRITERS[writer](aside / "model")
    with pytest.raises(DiskFullError, match=message), written_whole(small_disk / "out", 800_000) as aside:
        WRITERS[writer](aside)
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 24000 vs 23892"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_by_any_librarys_words(tmp_path, error):
    message = r"disk is full: .*/out needs more than 0\.0 kB"
    with pytest.raises(DiskFullError, match=message), folder_written_whole(tmp_path / "out"):
        raise error
    assert not list(tmp_path.iterdir())


def test_other_errors_are_not_about_the_disk(tmp_path):
    with pytest.raises(PermissionError), folder_written_whole(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "no")


def test_a_journal_keeps_what_was_finished(small_disk):
    """Scores and answers go on from there once there is room."""
    journal = Journal(small_disk / "scores.json", {"metric": "angular"})
    journal.add({"first": "x" * 100_000})
    with pytest.raises(DiskFullError, match=r"scores\.json\.journal needs more than .* what was finished is kept"):
        journal.add({"second": "y" * 400_000})
    journal.close()
    again = Journal(small_disk / "scores.json", {"metric": "angular"})
    assert again.entries == {"first": "x" * 100_000}
    again.add({"third": 3})
    again.close()
