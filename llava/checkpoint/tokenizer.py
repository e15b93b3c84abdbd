"""The tokenizer of a folder: read as upstream reads it, and written so that upstream reads it.

Upstream LLaVA uses transformers' slow tokenizers, which transformers 5 no longer has; Bunny uses the fast ones, with
tokenizer.json as it is. transformers 5 rebuilds some tokenizers from the vocabulary, by rules that depend on the
model_type in config.json.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llava.checkpoint.folder import local_folder
from llava.checkpoint.safe import UntrustedError, without_code
from llava.families import UnknownFamilyError, family_of
from llava.sentencepiece_bpe import FILE, TokenizerFileError, use_sentencepiece_merges

_JSON, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_OF_ONE_RUN = ("is_local", "local_files_only", "name_or_path", "backend", "trust_remote_code")
"""What transformers 5 writes about the loading, and earlier releases would take for settings."""


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, with a pad token.

    Raises:
        ValueError: it has no tokenizer, a damaged one, or tokenizer.json and tokenizer.model of different tokenizers.
    """
    folder = local_folder(path, weights=False)
    with _naming_tokenizer(folder):
        return _load(folder)


def _load(folder: Path) -> PreTrainedTokenizerBase:
    settings = _read(folder / _SETTINGS)
    llama = (settings.get("tokenizer_class") or "LlamaTokenizer").removesuffix("Fast") == "LlamaTokenizer"
    as_it_is = (folder / _JSON).is_file() and (_reads_json(folder) or not llama)
    if llama and (folder / FILE).is_file() and not as_it_is:
        # Without the setting, slow tokenizers are legacy ones; transformers 5 takes the opposite.
        legacy = settings.get("legacy") is not False
        tokenizer = without_code(LlamaTokenizer.from_pretrained, folder, legacy=legacy)
    else:
        tokenizer = without_code(AutoTokenizer.from_pretrained, folder)
        if as_it_is and not _follows(tokenizer, folder / _JSON):
            tokenizer = without_code(PreTrainedTokenizerFast.from_pretrained, folder)
    use_sentencepiece_merges(tokenizer, folder)
    if (folder / FILE).is_file():
        tokenizer.sentencepiece_model = (folder / FILE).read_bytes()
    if hasattr(tokenizer, "legacy"):
        # Saving writes this value; without it, a saved legacy tokenizer would be loaded with other ids.
        tokenizer.init_kwargs["legacy"] = bool(tokenizer.legacy)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


@contextmanager
def _naming_tokenizer(path: str | Path) -> Iterator[None]:
    """Turns errors of reading a tokenizer into a `ValueError` that names the folder and what it lacks."""
    if Path(path).is_dir() and not any((Path(path) / name).is_file() for name in _TOKENIZERS):
        raise ValueError(f"{path} has no tokenizer (none of {', '.join(_TOKENIZERS)}); copy its files from the source")
    try:
        yield
    except (UntrustedError, TokenizerFileError):
        raise
    # Not a narrower one: tokenizers raises Exception itself.
    except Exception as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"the tokenizer of {path} cannot be read ({why}); copy its files again") from error


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes the tokenizer for this release of transformers and for 4.37 to 4.45, with its tokenizer.model.

    They need the added tokens in tokenizer_config.json, and take a null there for a value. Those before 4.45
    need the merges as strings.
    """
    tokenizer.save_pretrained(folder)
    settings = {k: v for k, v in _read(folder / _SETTINGS).items() if v is not None and k not in _OF_ONE_RUN}
    if settings["tokenizer_class"] == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["additional_special_tokens"] = settings.pop("extra_special_tokens", [])
    settings["added_tokens_decoder"] = {
        str(number): {name: getattr(token, name) for name in _OF_A_TOKEN}
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    _write(folder / _SETTINGS, settings)
    model = getattr(tokenizer, "sentencepiece_model", None)
    if model is not None:
        (folder / FILE).write_bytes(model)
    content = _read(folder / _JSON)
    merges = content.get("model", {}).get("merges", [])
    if not any(" " in piece for merge in merges for piece in merge):
        content["model"]["merges"] = [" ".join(merge) for merge in merges]
        _write(folder / _JSON, content)


_OF_A_TOKEN = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def _reads_json(folder: Path) -> bool:
    """Whether upstream reads tokenizer.json as it is: the family's package uses fast tokenizers."""
    try:
        return family_of({"model_type": None} | _read(folder / "config.json")).fast_tokenizer
    except UnknownFamilyError:
        return False


def _follows(tokenizer: PreTrainedTokenizerBase, file: Path) -> bool:
    """Whether a loaded tokenizer splits and normalises text as its tokenizer.json says."""
    content = _read(file)
    rules = {name: content.get(name) for name in ("version", "normalizer", "pre_tokenizer")}
    wanted = Tokenizer.from_str(json.dumps(rules | {"model": {"type": "BPE", "vocab": {}, "merges": []}}))
    found = tokenizer.backend_tokenizer
    return all(
        json.loads(state(found)) == json.loads(state(wanted))
        for state in (lambda t: _state(t.normalizer), lambda t: _state(t.pre_tokenizer))
    )


def _state(rule: Any) -> bytes:
    return b"null" if rule is None else rule.__getstate__()


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
