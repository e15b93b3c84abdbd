"""The share of time that steps waited for data, and what a run prints of it."""

import json
import time

import pytest

from llava.data.dataset import LazySupervisedDataset
from llava.train import waiting
from llava.train.train import train
from llava.train.waiting import DataWait, waiting_line


def test_share_of_the_time_since_the_first_batch(monkeypatch):
    now = iter([100.0, 130.0, 140.0, 141.0, 145.0, 148.0, 150.0])
    monkeypatch.setattr(waiting.time, "perf_counter", lambda: next(now))
    wait = DataWait()
    for _ in range(3):
        with wait.timed():
            pass
    # 1 and 3 seconds of the 20 after the first batch, whose 30 seconds do not count.
    assert wait.measured() == pytest.approx(4 / 20)
    assert DataWait().measured() == 0


def test_a_run_that_waits_names_the_flag(monkeypatch):
    monkeypatch.setattr(waiting.os, "cpu_count", lambda: 16)
    assert waiting_line(0.02, 4) == "steps waited for data in 2.0% of the time"
    assert waiting_line(0.021, 4).endswith(
        "raise --dataloader_num_workers (now 4 per process; this machine has 16 cores)"
    )


def test_the_trainer_prints_and_records_it(tiny, train_flags, tmp_path, monkeypatch, capsys):
    made = LazySupervisedDataset.__getitem__

    def slowly(dataset, i):
        time.sleep(0.1)
        return made(dataset, i)

    monkeypatch.setattr(LazySupervisedDataset, "__getitem__", slowly)
    train(argv=train_flags(tmp_path, tune_mm_mlp_adapter=True, version="plain", data_path=tiny.captions, max_steps=2))
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    share = history[-1]["train_data_wait"]
    assert 0.02 < share < 1
    assert waiting_line(share, 0) in capsys.readouterr().out.splitlines()
