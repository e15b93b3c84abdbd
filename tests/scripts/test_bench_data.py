"""The benchmark of the data: its generated data set, and that it prints its rows."""

import json
import subprocess

from scripts.bench.beside_upstream import install
from scripts.bench.data import MEMORY, SAMPLE, START
from scripts.bench.made_mix import make_mix
from tests.conftest import REPOSITORY


def test_the_data_set_follows_from_the_seed(tmp_path):
    (data, images), (again, _) = make_mix(tmp_path / "one", 200), make_mix(tmp_path / "two", 200)
    assert data.read_bytes() == again.read_bytes()
    items = json.loads(data.read_text())
    assert len(items) == 200
    named = [item["image"] for item in items if "image" in item]
    assert 0.8 * 200 < len(named) < 200
    assert all((images / name).is_file() for name in named)
    assert len({(images / name).stat().st_ino for name in named}) <= 64, "names share a few files"
    stamp = data.stat().st_mtime_ns
    assert make_mix(tmp_path / "one", 200)[0].stat().st_mtime_ns == stamp


def test_a_venv_that_was_killed_before_pip_is_completed(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: ran.append(command[2]))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    install(tmp_path)
    assert ran == ["venv", "pip", "pip", "pip"]
    ran.clear()
    (tmp_path / "finished").unlink()
    (tmp_path / "bin/activate").touch()
    install(tmp_path)
    assert ran == ["pip", "pip", "pip"]


def test_prints_its_rows(python, tmp_path):
    # Of a run that was killed while it made its models.
    (tmp_path / "tower").mkdir()
    command = [python, "scripts/bench/data.py", "--folder", tmp_path, "--samples", 300, "--batch", 2]
    command += ["--steps", 2, "--step-seconds", 0.01]
    done = subprocess.run(list(map(str, command)), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert [row for row in rows if row in START] == list(START)
    assert [row for row in rows if row in {name for name, *_ in MEMORY}] == [name for name, *_ in MEMORY]
    assert [row for row in rows if row.removeprefix("sample: ") in SAMPLE] == [f"sample: {name}" for name in SAMPLE]
    assert [row for row in rows if row.startswith("waiting")] == [
        "waiting, 4 workers, steps of 0.01 s",
        "waiting, 0 workers, steps of 0.01 s",
    ]
    numbers = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith(tuple(START))]
    assert all(float(number) >= 0 for number in numbers)
