"""TextVQA: the annotations, Rosetta's OCR tokens and train_val_images.zip to upstream's question file."""

from pathlib import Path

from llava.eval.eval_textvqa import prompt_processor
from llava.eval.prepare.common import (
    SHORT,
    Options,
    PrepareError,
    check_published,
    find,
    load,
    set_up,
    with_images,
)

ANNOTATIONS = "TextVQA_0.5.1_val.json"
TOKENS = "TextVQA_Rosetta_OCR_v0.2_val.json"


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes llava_textvqa_val_v051_ocr.jsonl, or without OCR tokens llava_textvqa_val_v051.jsonl."""
    source = find(raw, ANNOTATIONS)
    images = find(raw, "train_images", "train_val_images/train_images")
    tokens = load_tokens(find(raw, TOKENS)) if options.ocr else None
    try:
        entries = load(source)["data"]
        rows = [
            {
                "question_id": entry["image_id"],
                "image": f"{entry['image_id']}.jpg",
                "text": prompt(entry["question"], None if tokens is None else tokens[entry["image_id"]]),
                "category": "default",
            }
            for entry in entries
        ]
    except (KeyError, TypeError) as error:
        raise PrepareError(
            f"{source} is not TextVQA's file, or not of the same split as the tokens ({error!r})"
        ) from error
    check_published("textvqa", len(rows), options)
    rows = with_images(rows, images, options)
    set_up(
        out,
        {ANNOTATIONS: source, "train_images": images},
        f"llava_textvqa_val_v051{'_ocr' if options.ocr else ''}.jsonl",
        rows,
        options,
        # Image ids are not unique; upstream's own file may write the tokens otherwise.
        key=lambda row: (row["question_id"], prompt_processor(row["text"])),
    )
    return len(rows)


def prompt(question: str, tokens: list[str] | None) -> str:
    """The question on a line of its own, which the scorer needs, and the tokens in one line."""
    lines = [" ".join(question.split("\n"))]
    if tokens is not None:
        lines.append(f"Reference OCR token: {', '.join(' '.join(token.split()) for token in tokens)}")
    return "\n".join([*lines, SHORT])


def load_tokens(path: Path) -> dict[str, list[str]]:
    try:
        return {entry["image_id"]: entry["ocr_tokens"] for entry in load(path)["data"]}
    except (KeyError, TypeError) as error:
        raise PrepareError(f"{path} is not TextVQA's file of OCR tokens ({error!r})") from error
