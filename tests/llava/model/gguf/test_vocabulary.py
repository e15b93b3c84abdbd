"""Tokenizers as GGUF: SentencePiece's scores give the tokenizer's own ids, byte-level rules get llama.cpp's names."""

import re
import shutil
from itertools import pairwise

import pytest
from tokenizers import AddedToken, Regex, normalizers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split, Whitespace

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.tokenizer import load_tokenizer
from llava.conversation import get_template

pytest.importorskip("gguf", reason="pip install -e '.[gguf]'")

from gguf import TokenType

from llava.model.gguf.export import prepare_export
from llava.model.gguf.vocabulary import vocabulary_of

TEXTS = (
    "A chat between a curious user and an assistant. USER: Where is the red line? ASSISTANT:",
    "two  blanks,   three\nand a\ttab, 3.14159 and 2024",
    "Ünïcödé 漢字 🙂 e\u0301",
    "USER",
    "",
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = ByteLevel(add_prefix_space=False, use_regex=False)
RULES = {
    "gpt-2": ByteLevel(add_prefix_space=False),
    "smollm": Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
    "llama-bpe": Sequence([Split(Regex(LLAMA3), "isolated"), BYTES]),
    "qwen2": Sequence([Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"), BYTES]),
}
"""Pre-tokenizers of published models, by llama.cpp's names."""


def merged_by_scores(vocabulary, text):
    """Ids as llama.cpp makes them: of all neighbours that form a token, those of the highest score are joined first."""
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    pieces = list(("▁" if vocabulary.blank and text else "") + text.replace(" ", "▁"))
    while True:
        pairs = [(ids.get(a + b), i) for i, (a, b) in enumerate(pairwise(pieces))]
        found = [(-vocabulary.scores[number], i) for number, i in pairs if number is not None]
        if not found:
            break
        _, i = min(found)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    start = [vocabulary.special["bos"]] * vocabulary.begins
    bytes_of = lambda piece: [ids[f"<0x{byte:02X}>"] for byte in piece.encode()]  # noqa: E731
    return start + [number for piece in pieces for number in ([ids[piece]] if piece in ids else bytes_of(piece))]


@pytest.mark.parametrize("name", ["llava_llama", "llava_mistral", "bunny-phi3"])
def test_sentencepiece(name, backbones):
    tokenizer = load_tokenizer(backbones[name])
    vocabulary = vocabulary_of(tokenizer, 640, stop="</s>")
    assert (vocabulary.kind, vocabulary.pre, vocabulary.begins, vocabulary.ends) == ("llama", "default", True, False)
    assert len(vocabulary.tokens) == len(vocabulary.types) == len(vocabulary.scores) == 640
    for text in TEXTS:
        assert merged_by_scores(vocabulary, text) == tokenizer(text).input_ids, text
    kinds = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert [kinds[token] for token in ("<unk>", "<s>", "</s>")] == [2, 3, 3]
    assert kinds["<0x0A>"] == TokenType.BYTE
    assert kinds["[PAD639]"] == TokenType.UNUSED
    assert vocabulary.special["eot"] == 2
    assert vocabulary.special["eos"] == tokenizer.eos_token_id


def test_added_tokens(backbones):
    tokenizer = load_tokenizer(backbones["llava_llama"])
    tokenizer.add_tokens(["▁own"])
    tokenizer.add_tokens(["<mark>"], special_tokens=True)
    first = len(tokenizer) - 2
    vocabulary = vocabulary_of(tokenizer, 640)
    assert vocabulary.tokens[first : first + 2] == [" own", "<mark>"]
    assert vocabulary.types[first : first + 2] == [TokenType.USER_DEFINED, TokenType.CONTROL]
    fewer = vocabulary_of(tokenizer, first)
    assert len(fewer.tokens) == first
    assert "eot" not in fewer.special


@pytest.mark.parametrize("pre", RULES)
def test_byte_level(pre, make_tokenizer):
    tokenizer = make_tokenizer("<|im_end|>", None, ["<|im_start|>"])
    tokenizer.backend_tokenizer.pre_tokenizer = RULES[pre]
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    vocabulary = vocabulary_of(tokenizer, 400, stop="<|im_end|>")
    assert (vocabulary.kind, vocabulary.pre, vocabulary.begins) == ("gpt2", pre, False)
    assert vocabulary.merges[0].count(" ") == 1
    assert vocabulary.special == {"eos": 0, "eot": 0}
    assert vocabulary.types[0] == TokenType.CONTROL


def test_bos_of_llama3(make_tokenizer):
    vocabulary = vocabulary_of(make_tokenizer("<|eot_id|>", "<|begin|>", ["<|end|>"]), 400, stop="<|end|>")
    assert vocabulary.begins
    assert [vocabulary.tokens[vocabulary.special[name]] for name in ("bos", "eos", "eot")] == [
        "<|begin|>",
        "<|eot_id|>",
        "<|end|>",
    ]


@pytest.mark.parametrize("rules", [Whitespace(), ByteLevel(add_prefix_space=True), None])
def test_unknown_rules_are_refused(rules, make_tokenizer):
    tokenizer = make_tokenizer("<|im_end|>")
    tokenizer.backend_tokenizer.pre_tokenizer = rules
    known = re.escape("SentencePiece's BPE, and the byte-level gpt-2, smollm, qwen2, llama-bpe")
    with pytest.raises(ValueError, match=f"splits text as llama.cpp does not .*{known}"):
        vocabulary_of(tokenizer, 400)


def test_chat_template(tiny_llava, backbones, tmp_path):
    """That of the checkpoint's conversation template; a plain language model keeps its own."""
    from jinja2 import Environment

    prepared = prepare_export(open_checkpoint(tiny_llava), "tiny", conv_mode="v1", text_only=True)
    jinja = prepared.files["model.gguf"].writer.kv_data[0]["tokenizer.chat_template"].value
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "left"}]
    conversation = get_template("v1")
    for role, text in zip(conversation.roles, ("Where?", "left"), strict=True):
        conversation.append_message(role, text)
    assert Environment().from_string(jinja).render(messages=turns) == conversation.get_prompt()

    tokenizer = load_tokenizer(backbones["bunny-qwen2"])
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    folder = shutil.copytree(backbones["bunny-qwen2"], tmp_path / "llm")
    tokenizer.save_pretrained(folder)
    prepared = prepare_export(open_checkpoint(folder), "tiny")
    assert prepared.files["model.gguf"].writer.kv_data[0]["tokenizer.chat_template"].value == tokenizer.chat_template


def test_phi3_by_name(backbones, tmp_path):
    """llama.cpp finds out by the model's name that white space after Phi-3's tokens is dropped."""
    folder = with_user_token(backbones["bunny-phi3"], tmp_path / "llm", rstrip=True)
    prepared = prepare_export(open_checkpoint(folder), "mine")
    assert prepared.files["model.gguf"].writer.kv_data[0]["general.name"].value == "mine (Phi-3)"
    folder = with_user_token(backbones["bunny-phi3"], tmp_path / "other", rstrip=False)
    prepared = prepare_export(open_checkpoint(folder), "mine")
    assert prepared.files["model.gguf"].writer.kv_data[0]["general.name"].value == "mine"


def with_user_token(backbone, folder, rstrip):
    """A copy of a language model whose tokenizer has a token `<|user|>`, and normalises text as Phi-3's own does."""
    shutil.copytree(backbone, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens([AddedToken("<|user|>", rstrip=rstrip, special=True, normalized=False)], special_tokens=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.backend_tokenizer.pre_tokenizer = None
    tokenizer.save_pretrained(folder)
    return folder
