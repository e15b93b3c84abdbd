"""An evaluation reads the own files of each folder once: the checkpoint is opened at the command line and handed on."""

import json
import sys
from collections import Counter

from llava.checkpoint import folder
from llava.eval.answering.flags import loader_parser
from llava.eval.answering.program import main


def test_answering_with_a_lora_reads_each_file_once(tiny, tiny_lora, tmp_path, monkeypatch):
    reads = Counter()
    real = folder._read_json

    def counted(path):
        reads[path] += 1
        return real(path)

    monkeypatch.setattr(folder, "_read_json", counted)
    (tmp_path / "q.jsonl").write_text('{"question_id": 1, "text": "Where is the line?", "image": "1.png"}\n')
    flags = ["--model-path", tiny_lora, "--image-folder", tiny.images, "--question-file", tmp_path / "q.jsonl"]
    flags += ["--answers-file", tmp_path / "a.jsonl", "--temperature", 0, "--max_new_tokens", 2, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["model_vqa_loader", *map(str, flags)])
    main(loader_parser(), "model_vqa_loader")
    assert json.loads((tmp_path / "a.jsonl").read_text())["question_id"] == 1
    base = json.loads((tiny_lora / "adapter_config.json").read_text())["base_model_name_or_path"]
    files = [tiny_lora / "adapter_config.json", tiny_lora / "config.json", folder.Path(base) / "config.json"]
    assert reads == dict.fromkeys(files, 1)
