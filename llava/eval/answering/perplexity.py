"""Perplexity of plain text (WikiText-2, samples of the Pile) and of answers to images: corpora, measuring, the report.

Text is read in windows of `context` tokens that begin every `stride` tokens. Each token is scored once, with as much
before it as its window holds. A text file is one stream; in JSON lines each line is a document of its own.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from llava.checkpoint.opened import Checkpoint
from llava.conversation import get_template
from llava.data.records import Records, open_records
from llava.eval.answering.arguments import check_tower, feature_cache, template_name
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.flags import DEFAULT_CONTEXT, UNITS
from llava.eval.answering.nll import Piece, answer_pieces, encode_documents, first_tokens, text_pieces
from llava.eval.answering.rolling import encode_after_prefix, prefix_of, rolling_pieces
from llava.eval.benchmarks.perplexity import text_not_as_published
from llava.eval.scoring.report import Measure, Report
from llava.eval.scoring.statistics import RESAMPLES, draw_counts, percentiles
from llava.files import sha256_of
from llava.images import MISSING, describe_unreadable, missing_images
from llava.journal import Journal
from llava.model.builder import load_tokenizer
from llava.names import agree, count
from llava.reading import read_json_lines, read_text
from llava.tokenization import check_template, encoder_for


def check_flags(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Raises `EvaluationError` that lists everything that is wrong."""
    wrong = []
    if (args.text_file is None) == (args.data_path is None):
        wrong.append("give either --text-file or --data-path")
    for name in ("samples", "max_tokens", "context", "stride", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            wrong.append(f"--{name.replace('_', '-')} {value} must be at least 1")
    if args.data_path and (args.context or args.stride or args.max_tokens):
        wrong.append("--context, --stride and --max-tokens are of --text-file; answers are read whole")
    if args.as_lm_eval and (args.data_path or args.stride or args.max_tokens):
        wrong.append("--as-lm-eval reads whole documents of --text-file: no --data-path, --stride or --max-tokens")
    for what, path in (("text", args.text_file), ("data", args.data_path)):
        if path and not Path(path).is_file():
            wrong.append(f"{what} file {path} does not exist")
    longest = getattr(checkpoint.model_config(), "max_position_embeddings", None)
    if args.context and longest and args.context > longest:
        wrong.append(f"--context {args.context} is beyond the {longest} positions of the model")
    least, held = (2, "two tokens") if args.bos == "none" else (3, "a bos and two tokens (--bos none: two tokens)")
    if args.context and not args.as_lm_eval and args.context < least:
        wrong.append(f"--context {args.context} is too small: a window holds {held}")
    elif args.context and args.stride and args.stride > args.context:
        wrong.append(f"--stride {args.stride} is larger than --context {args.context} and leaves tokens out")
    if wrong:
        raise EvaluationError("perplexity cannot be measured:\n" + "\n".join(f"- {line}" for line in wrong))


def read_texts(path: str | Path) -> dict[str, tuple[str, str]]:
    """The documents of a text file (one) or of JSON lines with a `text` (one per line): key -> (text, original).

    The original is that of a text that was changed for reading (`original` in JSON lines), otherwise the text itself.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        text = read_text(path, error=EvaluationError)
        return {path.name: (text, text)}
    texts = {}
    for number, row in read_json_lines(path, error=EvaluationError):
        if not isinstance(row.get("text"), str) or not isinstance(row.get("original", ""), str):
            raise EvaluationError(f"{path}, line {number} has no 'text', or an 'original' that is not a text")
        texts[f"line {number}"] = (row["text"], row.get("original", row["text"]))
    return texts


@dataclass
class Corpus:
    """A text, or conversations (`records`) and which of them are scored (`indices`)."""

    args: argparse.Namespace
    template: str
    records: Records | None = None
    indices: tuple[int, ...] = ()

    @classmethod
    def open(cls, args: argparse.Namespace, checkpoint: Checkpoint) -> "Corpus":
        """Reads what needs no model.

        Raises:
            EvaluationError: images are missing, or the checkpoint has no tower for them; a text file without text.
            TemplateError: of answers: an unknown template, or the tokenizer does not have its end of turn.
        """
        template = template_name(args, checkpoint)
        if args.text_file:
            if not any(text.strip() for text, _ in read_texts(args.text_file).values()):
                raise EvaluationError(f"{args.text_file} holds no text")
            return cls(args, template)
        check_template(template, load_tokenizer(checkpoint.tokenizer_folder), "--conv-mode")
        records = open_records(args.data_path)
        indices = tuple(range(min(len(records), args.samples or len(records))))
        corpus = cls(args, template, records, indices)
        if corpus.needs_tower:
            check_tower(checkpoint, "samples", "data")
        missing = missing_images((name for i in indices for name in records[i].images), args.image_folder)
        if missing:
            found = describe_unreadable(dict.fromkeys(missing, MISSING), args.image_folder)
            raise EvaluationError(f"{found}; give --image-folder the folder that the paths begin in")
        return corpus

    @property
    def needs_tower(self) -> bool:
        return self.records is not None and any(self.records[i].images for i in self.indices)

    def measure(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, processor: Any, journal: Journal | None = None
    ) -> tuple[list[Piece], dict[str, Any]]:
        """The pieces, and how they were measured: corpus, context, stride, bos or template."""
        if self.records is None:
            pieces, details = self._measure_text(model, tokenizer, journal)
        else:
            pieces, details = self._measure_answers(model, tokenizer, processor, journal)
        path = self.args.text_file or self.args.data_path
        return pieces, {"corpus": path, "sha256": sha256_of(path), **details}

    def _measure_text(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, journal: Journal | None
    ) -> tuple[list[Piece], dict[str, Any]]:
        args = self.args
        texts = read_texts(args.text_file)
        read = dict(itertools.islice(texts.items(), args.samples))
        longest = getattr(model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
        about = {
            "documents": len(read),
            "of": {"documents": [len(read), len(texts)]},
            "not_published": text_not_as_published(args.text_file, [original for _, original in texts.values()]),
        }
        if args.as_lm_eval:
            context = args.context or longest
            documents = encode_after_prefix(tokenizer, read, bos=args.bos == "auto")
            own = {"auto": "as the tokenizer (lm-eval since 0.4.9.2)", "none": "none (lm-eval before 0.4.9.2)"}
            return rolling_pieces(model, documents, context, args.batch_size or 1, journal), {
                **about,
                "reading": "each document as lm-eval's loglikelihood_rolling",
                "prefix": tokenizer.convert_ids_to_tokens(prefix_of(tokenizer)),
                "context": context,
                "bos": own[args.bos],
                "pieces_are": "documents",
            }
        whole = encode_documents(tokenizer, {key: text for key, (text, _) in read.items()})
        documents = first_tokens(whole, args.max_tokens)
        tokens, of_all = (sum(len(document.ids) for document in part) for part in (documents, whole))
        bos = encoder_for(tokenizer).bos if args.bos == "auto" else []
        context = args.context or min(DEFAULT_CONTEXT, longest)
        stride = args.stride or context - len(bos)
        if tokens + len(bos) < 2:
            raise EvaluationError(f"{args.text_file}: nothing can be scored of {tokens} tokens")
        pieces = text_pieces(model, documents, bos, context, stride, args.batch_size or 1, journal)
        return pieces, {
            **about,
            "documents": len(documents),
            "of": {**about["of"], "tokens": [tokens, of_all]},
            "context": context,
            "stride": stride,
            "bos": tokenizer.convert_ids_to_tokens(bos) or "none",
            "pieces_are": "windows" if len(documents) == 1 else "documents",
        }

    def _measure_answers(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, processor: Any, journal: Journal | None
    ) -> tuple[list[Piece], dict[str, Any]]:
        args, folder = self.args, Path(self.args.image_folder)
        cache = feature_cache(args, model) if self.needs_tower else None
        if cache is not None:
            paths = dict.fromkeys(folder / name for i in self.indices for name in self.records[i].images)
            cache.ensure(paths, model.get_vision_tower(), device=model.device)
        template = get_template(self.template)
        corpus = (template, self.records, self.indices, folder, args.batch_size or 8, cache, journal)
        pieces = answer_pieces(model, tokenizer, processor, *corpus)
        return pieces, {
            "of": {"samples": [len(self.indices), len(self.records)]},
            "cut_off": sum(piece.cut for piece in pieces),
            "left_out": len(self.indices) - len(pieces),
            "scored_tokens_are": "answers, with the token that ends each",
            "template": self.template,
            "context": getattr(model.config, "tokenizer_model_max_length", None),
            "stride": None,
            "bos": "as the template has it",
            "pieces_are": "samples",
        }


def perplexities(pieces: Sequence[Piece], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Measure]:
    """Perplexity per token, byte and word, and bits per byte, each with its 95% bootstrap interval over the pieces.

    If a piece is cut, only that per token: the bytes and words of what was scored are not known.
    """
    if not pieces:
        raise EvaluationError("nothing was scored")
    nll = np.array([piece.nll for piece in pieces])
    result = {}
    for unit in _units(pieces):
        counts = np.array([getattr(piece, f"{unit}s") for piece in pieces], dtype=np.float64)
        if not counts.sum():
            continue
        draws = draw_counts(
            np.ones(len(pieces), dtype=np.int64),
            resamples,
            np.random.default_rng(seed),
            lambda drawn, counts=counts: (drawn @ nll) / np.maximum(drawn @ counts, 1),
        )
        values = np.array([nll.sum() / counts.sum(), *percentiles(draws)])
        result[f"perplexity ({unit})"] = Measure(*np.exp(values).tolist(), len(pieces))
        if unit == "byte":
            result["bits per byte"] = Measure(*(values / np.log(2)).tolist(), len(pieces))
    return result


def _units(pieces: Sequence[Piece]) -> tuple[str, ...]:
    return ("token",) if any(piece.cut for piece in pieces) else UNITS


def report_of(pieces: Sequence[Piece], unit: str, details: Mapping[str, Any], model: str) -> Report:
    """The pieces as a score, with warnings about a corpus that is cut or not the published one.

    Raises:
        EvaluationError: nothing was scored, or not the whole answers, and `unit` is not "token".
    """
    warnings = [
        f"a subset: the first {read:,} of {whole:,} {what}"
        for what, (read, whole) in details.get("of", {}).items()
        if read < whole
    ]
    warnings += details.get("not_published", ())
    limit = f"tokenizer_model_max_length ({details.get('context')})"
    if cut := details.get("cut_off"):
        were = f"{count(cut, 'sample')} {agree(cut, 'was', 'were')} cut off at {limit}"
        if unit != "token":
            raise EvaluationError(
                f"--unit {unit}: {were}, so there is only the perplexity per token; give --unit token"
            )
        warnings.append(f"{were}: what is left of the answers is scored, per token only")
    if left_out := details.get("left_out"):
        were = f"{count(left_out, 'sample')} {agree(left_out, 'was', 'were')} left out"
        warnings.append(f"{were}: no token of the answers is within {limit}")
    warnings += [] if len(pieces) > 1 else ["one piece: there is no interval"]
    summed = ("nll", *(f"{name}s" for name in _units(pieces)))
    totals = {name: sum(getattr(piece, name) for piece in pieces) for name in summed}
    rows = [[piece.key, piece.nll, piece.tokens, piece.bytes, piece.words] for piece in pieces]
    return Report(
        benchmark="perplexity",
        metric=f"perplexity ({unit})",
        metrics=perplexities(pieces),
        answers=len(pieces),
        parse_failures=0,
        details={**details, "unit": unit, "scored": totals, "pieces": rows},
        warnings=warnings,
        model=model,
        unit="perplexity",
    )
