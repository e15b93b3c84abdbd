"""The quickstart's scores are asked for on every run: the command itself knows what it need not measure again."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_old_results_do_not_stand_for_new_ones(tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    (out / "lora").mkdir(parents=True)
    (out / "importance").mkdir()
    (out / "importance/scores.json").write_text("old")
    (out / "importance/top8.md").write_text("table")
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/bash\necho "$@" >> {log}\n')
    python.chmod(0o755)
    environment = {**os.environ, "OUT": str(out), "VENV": str(tmp_path / "venv"), "SAMPLES": "77"}
    subprocess.run(["bash", ROOT / "scripts/score_quickstart.sh"], env=environment, check=True, capture_output=True)
    ran = [line for line in log.read_text().splitlines() if "visual_region" in line]
    assert [line.split()[2] for line in ran] == ["score", "select"]
    assert "--samples 77" in ran[0]
