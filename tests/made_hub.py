"""The made downloads of tests/made_benchmarks.py as the Hub has them: parquet files, with images inside."""

import base64
import csv
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.made_benchmarks import MAKERS, TEXT_MAKERS, Perfect


def parquet(folder: Path, split: str, rows: Sequence[dict[str, Any]], shards: int = 2, suffix: str = "") -> None:
    """Writes rows as the Hub names its files."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        name = f"{split}-{shard:05d}-of-{shards:05d}{suffix}.parquet"
        pq.write_table(pa.Table.from_pylist(rows[shard * len(rows) // shards : (shard + 1) * len(rows) // shards]),
                       folder / name)  # fmt: skip


def picture(path: Path) -> dict[str, Any]:
    return {"bytes": path.read_bytes(), "path": path.name}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def docvqa(raw: Path, hub: Path) -> None:
    entries = read(raw / "val_v1.0_withQT.json")["data"]
    changes = [{"questionId": str(e["questionId"]), "image": picture(raw / e["image"])} for e in entries]
    parquet(hub / "DocVQA", "validation", [e | c for e, c in zip(entries, changes, strict=True)])


def textvqa(raw: Path, hub: Path) -> None:
    tokens = {e["image_id"]: e["ocr_tokens"] for e in read(raw / "TextVQA_Rosetta_OCR_v0.2_val.json")["data"]}
    rows = [
        e | {"ocr_tokens": tokens[e["image_id"]], "image": picture(raw / f"train_images/{e['image_id']}.jpg")}
        for e in read(raw / "TextVQA_0.5.1_val.json")["data"]
    ]
    parquet(hub / "data", "validation", rows)


def gqa(raw: Path, hub: Path) -> None:
    rows = [{"id": key, **e} for key, e in read(raw / "testdev_balanced_questions.json").items()]
    parquet(hub / "testdev_balanced_instructions", "testdev", rows, shards=1)
    images = [{"id": path.stem, "image": picture(path)} for path in sorted((raw / "images").iterdir())]
    parquet(hub / "testdev_balanced_images", "testdev", images, shards=1)


def scienceqa(raw: Path, hub: Path) -> None:
    rows = [
        p | {"image": picture(raw / f"images/test/{pid}/image.png") if p["image"] else None}
        for pid, p in read(raw / "problems.json").items()
        if p["split"] == "test"
    ]
    parquet(hub / "ScienceQA-FULL", "test", rows)


def ocrvqa(raw: Path, hub: Path) -> None:
    rows = [
        {"image_id": key, "image_url": b.pop("imageURL"), "image": picture(raw / f"images/{key}.jpg"), **b}
        for key, b in read(raw / "dataset.json").items()
        if b["split"] == 3
    ]
    parquet(hub / "data", "test", rows, suffix="-45d65f5057dd1a9e")


def mmbench(raw: Path, hub: Path) -> None:
    csv.field_size_limit(1 << 30)
    with open(raw / "mmbench_dev_20230712.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, dialect="excel-tab"))
    common = dict.fromkeys(("hint", "C", "D", "source", "category", "l2-category", "comment", "split"))
    images = [{"image": {"bytes": base64.b64decode(r["image"]), "path": None}, "index": int(r["index"])} for r in rows]
    parquet(hub / "data", "dev", [common | r | i for r, i in zip(rows, images, strict=True)])


def _objects(raw: Path) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    instances = read(raw / "instances.json")
    images = {image["id"]: image for image in instances["images"]}
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    refs = [ref for ref in pickle.loads((raw / "refs(umd).p").read_bytes()) if ref["split"] == "test"]
    return [(ref, images[ref["image_id"]], annotations[ref["ann_id"]]) for ref in refs]


def refcocog(raw: Path, hub: Path) -> None:
    """lmms-lab/RefCOCOg."""
    rows = [
        {
            "question_id": str(ref["ann_id"]),
            "image": picture(raw / f"train2014/{image['file_name']}"),
            "answer": [sentence["sent"] for sentence in ref["sentences"]],
            "bbox": annotation["bbox"],
            "file_name": ref["file_name"],
        }
        for ref, image, annotation in _objects(raw)
    ]
    parquet(hub / "data", "test", rows)


def refcocog_refs(raw: Path, hub: Path) -> None:
    """jxu124/refcocog, next to which COCO's images are unpacked."""
    rows = [
        ref | {"raw_anns": json.dumps(annotation), "raw_image_info": json.dumps(image)}
        for ref, image, annotation in _objects(raw)
    ]
    for row in rows:
        row["sentences"] = [sentence | {"tokens": ["x"]} for sentence in row["sentences"]]
    parquet(hub / "data", "test", rows, shards=1, suffix="-75b9f3f0a1b2c3d4")
    (hub / "train2014").symlink_to(raw / "train2014")


def mmlu(raw: Path, hub: Path) -> None:
    for split in ("dev", "test"):
        rows = []
        for path in sorted((raw / split).iterdir()):
            with open(path, encoding="utf-8", newline="") as file:
                for question, *choices, letter in csv.reader(file):
                    subject = path.stem.removesuffix(f"_{split}")
                    rows.append({"question": question, "subject": subject, "choices": choices,
                                 "answer": "ABCD".index(letter)})  # fmt: skip
        parquet(hub / "all", split, rows, shards=1)


HUB_MAKERS: dict[str, Callable[[Path, Path], None]] = {
    maker.__name__: maker for maker in (docvqa, textvqa, gqa, scienceqa, ocrvqa, mmbench, refcocog, refcocog_refs, mmlu)
}


def make(name: str, root: Path) -> tuple[Perfect, Path, Path]:
    """A made download, and the same as the Hub has it: right replies, folder, folder."""
    raw, hub = root / "raw", root / "hub"
    perfect = (MAKERS | TEXT_MAKERS)[name.removesuffix("_refs")](raw)
    hub.mkdir()
    HUB_MAKERS[name](raw, hub)
    return perfect, raw, hub
