"""Every family's tokenizer: ids as upstream's, before and after it is saved."""

import json
import lzma
import random

import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from llava.checkpoint.tokenizer import load_tokenizer, save_tokenizer
from llava.families import known_families
from llava.tokenization import encoder_for
from tests.conftest import REPOSITORY
from tests.llava.test_sentencepiece_bpe import PIECES

CORPUS = ["A chat between a user and an assistant. USER: Where is it?  ASSISTANT: at 1234 it's  there,\n\n\tNo"] * 3
WORDS = Regex(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+")
"""A rule of words with three digits at most, as in Llama 3 and StableLM 2; GPT-2's has none."""
DECLARED = {"llama": "PreTrainedTokenizerFast", "phi": "CodeGenTokenizer", "qwen2": "Qwen2Tokenizer"}
DECLARED |= {"stablelm": "GPT2Tokenizer", "phi3": "LlamaTokenizer"}
"""The tokenizer_class of the published backbone."""


def byte_level(backbone):
    """A tokenizer.json with the parts of the published one."""
    made = Tokenizer(models.BPE())
    own = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=backbone == "phi")
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX) if backbone == "qwen2" else WORDS, "isolated")
    made.pre_tokenizer = own if backbone == "phi" else pre_tokenizers.Sequence([split, own])
    made.normalizer = normalizers.NFC() if backbone == "qwen2" else None
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"initial_alphabet": alphabet, "special_tokens": ["<|endoftext|>"], "show_progress": False}
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, **options))
    # Phi's runs of blanks are added tokens.
    made.add_tokens([AddedToken(" " * count, normalized=True) for count in (4, 2)] if backbone == "phi" else [])
    return made


def phi3(parity):
    """Phi-3's: a word-start mark in front of every text between special tokens, which take the blanks behind them."""
    made = load_tokenizer(parity / "llava-tiny").backend_tokenizer
    made.pre_tokenizer = None
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.add_special_tokens([AddedToken("<|end|>", rstrip=True, normalized=False)])
    return made


def texts(extra=()):
    rng = random.Random(0)
    pieces = (*PIECES, "it's", "assistant", "12345", *extra)
    return ["".join(rng.choice(pieces) for _ in range(rng.randint(1, 12))) for _ in range(300)]


@pytest.mark.parametrize("model_type", ["plain", "bunny"])
@pytest.mark.parametrize("backbone", sorted(DECLARED))
def test_bunnys_use_tokenizer_json_as_it_is(backbone, model_type, parity, tmp_path):
    made = phi3(parity) if backbone == "phi3" else byte_level(backbone)
    folder, again = tmp_path / "folder", tmp_path / "again"
    for place in (folder, again):
        place.mkdir()
        config = {"model_type": backbone if model_type == "plain" else f"bunny-{backbone}"}
        (place / "config.json").write_text(json.dumps(config))
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": DECLARED[backbone], "eos_token": "<|endoftext|>"}
    if backbone == "phi3":
        (folder / "tokenizer.model").write_bytes((parity / "llava-tiny" / "tokenizer.model").read_bytes())
        settings = {"tokenizer_class": DECLARED[backbone], "eos_token": "</s>", "unk_token": "<unk>", "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(folder)
    save_tokenizer(tokenizer, again)
    asked = texts(["<|end|>"] if backbone == "phi3" else ["<|endoftext|>"])
    expected = [made.encode(text, add_special_tokens=False).ids for text in asked]
    for found in (tokenizer, load_tokenizer(again), AutoTokenizer.from_pretrained(again)):
        assert [found(text, add_special_tokens=False).input_ids for text in asked] == expected
    # Earlier releases know no class TokenizersBackend, and tokenizers before 0.20 merges as strings only.
    known = (DECLARED[backbone].removesuffix("Fast"), "PreTrainedTokenizerFast")
    assert json.loads((again / "tokenizer_config.json").read_text())["tokenizer_class"] in known
    assert isinstance(json.loads((again / "tokenizer.json").read_text())["model"]["merges"][0], str)
    assert (again / "tokenizer.model").is_file() == (backbone == "phi3")


@pytest.mark.parametrize("legacy", [None, True, False])
@pytest.mark.parametrize("model_type", ["llama", "llava", "llava_llama", "mistral", "llava_mistral", "phi3"])
def test_tokenizer_model_alone(model_type, legacy, parity, tmp_path):
    """Ids are SentencePiece's whatever the model_type; without the setting a tokenizer is a legacy one."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "tokenizer.model").write_bytes((parity / "llava-tiny" / "tokenizer.model").read_bytes())
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings |= {} if legacy is None else {"legacy": legacy}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    expected = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    encoder = encoder_for(load_tokenizer(tmp_path))
    asked = texts()
    assert [encoder.encode(text)[0] for text in asked] == [expected.encode(text) for text in asked]
    assert encoder.legacy == (legacy is not False)


def test_what_is_saved_says_what_earlier_releases_need(tmp_path):
    """transformers 4.45 took a null for "no word-start mark", and knows added tokens from this file alone."""
    packed = (REPOSITORY / "tests/data/sentencepiece/tokenizer.model.v1.xz").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(lzma.decompress(packed))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    save_tokenizer(tokenizer, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert None not in settings.values()
    assert settings["tokenizer_class"] == "LlamaTokenizer"
    assert settings["added_tokens_decoder"]["32000"]["content"] == "<image>"
    assert "extra_special_tokens" not in settings
    assert len(load_tokenizer(tmp_path)) == 32001


def test_every_family_says_how_upstream_reads_its_tokenizer():
    fast = {name for name, family in known_families().items() if family.fast_tokenizer}
    assert fast == {f"bunny-{backbone}" for backbone in DECLARED}
