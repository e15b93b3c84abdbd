"""Exported files in llama.cpp itself: the same tokens, logits, text and image features.

Skipped without llama-cpp-python, which pip builds from its source: `CMAKE_ARGS=-DGGML_NATIVE=OFF pip install
llama-cpp-python` needs cmake, a C++ compiler and some minutes.
"""

import ctypes
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.tokenizer import load_tokenizer
from llava.model.builder import load_checkpoint

pytest.importorskip("gguf", reason="pip install -e '.[gguf]'")

from gguf import GGUFReader

from llava.model.gguf.export import prepare_export
from tests.llava.model.gguf.clip_cpp import embeddings
from tests.llava.model.gguf.test_language import EXPORTABLE, changed
from tests.llava.model.gguf.test_vocabulary import RULES, TEXTS, with_user_token

llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python (it is built: cmake, a C++ compiler)")

F32 = 0
"""ggml's number of the type: by default, keys and values are kept in float16."""
PROMPTS = (
    "The capital of France is",
    "Water boils at 100 degrees",
    "Once upon a time, there was a",
    "def fibonacci(n):\n",
    "The colours of the rainbow are",
    "2 + 2 =",
    "A cat is a kind of",
    "The opposite of hot is",
    "My favourite food is",
    "In 1969, people first",
    "The sun rises in the",
    "To be or not to be,",
    "Hello, my name is",
    "The largest planet of the solar system is",
    "Bonjour, je m'appelle",
    "An apple a day",
    "<|im_start|>user\nWhat is a tree?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nName three  animals.<|im_end|>\n<|im_start|>assistant\n",
    "Ünïcödé and 漢字 are",
    "Question: Is the sky blue? Answer:",
)


def load(folder, **settings):
    settings |= {"type_k": F32, "type_v": F32, "n_threads": 1, "n_threads_batch": 1, "logits_all": True}
    return llama_cpp.Llama(str(folder / "model.gguf"), n_ctx=256, verbose=False, **settings)


def logits_of(llm, ids):
    llm.reset()
    llm.eval(ids)
    return torch.from_numpy(np.array(llm.scores[: len(ids)]))


def written(checkpoint, folder, **settings):
    prepare_export(checkpoint, folder.name, torch.float32, **settings).write(folder)
    return folder


@pytest.mark.parametrize("name", EXPORTABLE)
def test_tiny_models(name, backbones, tmp_path):
    assert_same(open_checkpoint(backbones[name]), tmp_path / "gguf", TEXTS)


@pytest.mark.parametrize(
    ("name", "rope"),
    [
        ("bunny-llama", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ("bunny-phi3", {"rope_type": "longrope", "short_factor": [1, 1.1, 1.3, 1.7], "long_factor": [1.0, 2, 3, 4]}),
        ("llava_llama", {"rope_type": "linear", "factor": 4.0}),
        ("bunny-qwen2", {"rope_type": "linear", "factor": 4.0}),
    ],
)
def test_scaled_positions(name, rope, backbones, tmp_path):
    """Phi-3's short factors: llama.cpp takes the long ones if its context is longer than the original."""
    rope = rope | {"rope_theta": 10000.0, "original_max_position_embeddings": 256}
    values = {"rope_parameters": rope, "original_max_position_embeddings": 256}
    folder = changed(backbones[name], tmp_path / "llm", **values)
    assert_same(open_checkpoint(folder), tmp_path / "gguf", TEXTS[:2])


@pytest.mark.parametrize("rstrip", [True, False])
def test_white_space_after_phi3s_tokens(rstrip, backbones, tmp_path):
    folder = with_user_token(backbones["bunny-phi3"], tmp_path / "llm", rstrip)
    assert_same(open_checkpoint(folder), tmp_path / "gguf", ["<|user|>\nWhere is the line? <|user|> Is it red?"])


@pytest.mark.parametrize("pre", RULES)
def test_byte_level_rules(pre, make_tokenizer, backbones, tmp_path):
    folder = shutil.copytree(backbones["bunny-qwen2"], tmp_path / "llm")
    tokenizer = make_tokenizer("<|im_end|>", "<|im_start|>")
    tokenizer.backend_tokenizer.pre_tokenizer = RULES[pre]
    tokenizer.save_pretrained(folder)
    texts = (*TEXTS, "<|im_start|>user\n\nIt's  12345 o'clock,\r\n\tDON'T!!<|im_end|>\n<|im_start|>")
    assert_same(open_checkpoint(folder), tmp_path / "gguf", texts)


def assert_same(checkpoint, folder, texts):
    tokenizer, model, _, _ = load_checkpoint(checkpoint, device="cpu", text_only=True)
    llm = load(written(checkpoint, folder))
    for text in texts:
        ids = tokenizer(text).input_ids
        assert llm.tokenize(text.encode(), add_bos=True, special=True) == ids, text
        if not ids:
            continue
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids])).logits[0]
        torch.testing.assert_close(logits_of(llm, ids), expected, atol=1e-3, rtol=0, msg=text)


def test_pruned_lora(tiny_lora, tmp_path, command):
    flags = ("--model-path", tiny_lora, "--layers", "1,4", "--output", tmp_path / "pruned")
    command("prune", *flags, "--base-output", tmp_path / "base")
    checkpoint = open_checkpoint(tmp_path / "pruned")
    tokenizer, model, _, _ = load_checkpoint(checkpoint, device="cpu", text_only=True)
    llm = load(written(checkpoint, tmp_path / "gguf", text_only=True))
    ids = tokenizer(TEXTS[0]).input_ids
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits_of(llm, ids), expected, atol=1e-3, rtol=0)


def test_greedy_text_of_smollm2(embedded, tmp_path):
    checkpoint = open_checkpoint(embedded / "models" / "SmolLM2-135M-Instruct")
    tokenizer, model, _, _ = load_checkpoint(checkpoint, device="cpu", text_only=True)
    llm = load(written(checkpoint, tmp_path / "smollm2"))
    settings = {"max_tokens": 8, "temperature": 0.0, "repeat_penalty": 1.0}
    tokenizer.padding_side = "left"
    inputs = tokenizer(list(PROMPTS), return_tensors="pt", padding=True)
    generated = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    for prompt, ids in zip(PROMPTS, generated, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert llm.create_completion(prompt, **settings)["choices"][0]["text"] == text, prompt
    ids = tokenizer(PROMPTS[16]).input_ids
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits_of(llm, ids), expected, atol=1e-3, rtol=1e-4)


def test_chat_template(embedded, tmp_path):
    """The template in the file renders what the tokenizer's own does."""
    folder = embedded / "models" / "SmolLM2-135M-Instruct"
    llm = load(written(open_checkpoint(folder), tmp_path / "smollm2"), vocab_only=True)
    assert llm.metadata["tokenizer.chat_template"] == load_tokenizer(folder).chat_template
    assert llm.token_eos() == load_tokenizer(folder).eos_token_id


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_image_features(tower, tiny_llava, make_bunny, tmp_path):
    """Of an image of the tower's own size, as llama.cpp resizes in another way; GELU is its tanh approximation."""
    folder = shutil.copytree(tiny_llava if tower == "clip" else make_bunny("bunny-phi3"), tmp_path / "model")
    checkpoint = open_checkpoint(folder)
    output = written(checkpoint, tmp_path / "gguf", conv_mode="v1")
    _, model, processor, _ = load_checkpoint(checkpoint, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    mean, std = (np.array(values, dtype=np.float32) for values in (processor.image_mean, processor.image_std))
    pixels = torch.from_numpy((image.astype(np.float32) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        ours = model.encode_images(pixels)[0]
        reader = GGUFReader(output / "mmproj.gguf")
        defect = embeddings(reader, pixels, F.gelu, class_last=True)
    found = features(load(output), output, image, tuple(ours.shape))
    if tower == "clip" and (found - ours).abs().max() > (found - defect).abs().max():
        # ggml-org/llama.cpp#25814; a release without it is compared with ours.
        ours = defect
    torch.testing.assert_close(found, ours, atol=1e-3, rtol=1e-3)


def features(llm, output, image, shape):
    """What llama.cpp's mtmd computes of an image of `(height, width, 3)` bytes."""
    try:
        from llama_cpp import mtmd_cpp as mtmd
    except OSError:
        pytest.skip("this llama-cpp-python was built without llama.cpp's mtmd library")
    settings = mtmd.mtmd_context_params_default()
    settings.use_gpu, settings.n_threads, settings.print_timings = False, 1, False
    # Flash attention keeps keys and values in float16.
    settings.flash_attn_type = 0
    context = mtmd.mtmd_init_from_file(str(output / "mmproj.gguf").encode(), llm.model, settings)
    assert context
    height, width, _ = image.shape
    bitmap = mtmd.mtmd_bitmap_init(width, height, image.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    chunks = mtmd.mtmd_input_chunks_init()
    text = mtmd.mtmd_input_text()
    text.text = marker = mtmd.mtmd_default_marker()
    text.text_len, text.add_special, text.parse_special = len(marker), True, True
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1) == 0
    found = [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
    [chunk] = [c for c in found if mtmd.mtmd_input_chunk_get_type(c) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE]
    assert mtmd.mtmd_input_chunk_get_n_tokens(chunk) == shape[0]
    assert mtmd.mtmd_encode_chunk(context, chunk) == 0
    values = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(context), shape).copy()
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(bitmap)
    mtmd.mtmd_free(context)
    return torch.from_numpy(values)
