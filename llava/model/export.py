"""Export to a folder that stock transformers loads, with tower and processor.

Its class is `LlavaForConditionalGeneration`, or `LlavaNextForConditionalGeneration` if images have several views.
Weights are written under the names that every release of that class reads (`language_model.model.`...).
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import save_torch_state_dict
from tokenizers import AddedToken
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    LlavaImageProcessorPil,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)
from transformers import LlavaConfig as HFLlavaConfig
from transformers.image_processing_utils import BaseImageProcessor

from llava.chat_template import chat_template
from llava.checkpoint.hf_llava import CARRIED, PROJECTOR_TYPE, our_name
from llava.checkpoint.parts import NEWLINE
from llava.checkpoint.write import bytes_of, finish_folder
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation
from llava.families import STOCK_CLASSES, family_of
from llava.files import folder_written_whole
from llava.tiling import ANYRES, FLAT, SPATIAL_UNPAD, processor_settings, turned

_ROUND_VOCABULARY_TO = 64


class ExportError(ValueError):
    """A model that the wanted format cannot express."""


def check_exportable(config: Any, tower: Any) -> None:
    """Raises `ExportError` with every feature that transformers' LLaVA lacks. `tower` may be a stub, or None."""
    if tower is None:
        raise ExportError("the model has no vision tower: it is a plain language model, which needs no export")
    problems = vision_problems(config, tower, "transformers' LLaVA")
    merge = getattr(config, "mm_patch_merge_type", None) or FLAT
    if getattr(config, "image_aspect_ratio", None) == ANYRES and merge != SPATIAL_UNPAD:
        problems.append(f"mm_patch_merge_type {merge}: transformers' LlavaNext joins views as {SPATIAL_UNPAD} only")
    if problems:
        raise ExportError("the model cannot be exported: " + "; ".join(problems))


def vision_problems(config: Any, tower: Any, where: str) -> list[str]:
    """What `where`, transformers' LLaVA or a reader of the same models, lacks of tower and projector."""
    problems = []
    vision = tower.cfg_only
    if type(vision) not in MODEL_MAPPING:
        problems.append(
            f"{where} has no vision model of type {vision.model_type!r} (the tower {tower.vision_tower_name}); "
            "towers that can be exported: CLIP, SigLIP"
        )
    elif tower.hidden_size != vision.hidden_size:
        problems.append(
            f"the tower returns features of {tower.hidden_size} values, its network {vision.hidden_size}: several "
            f"scales (S2) have no place in {where}"
        )
    kind = getattr(config, "mm_projector_type", "linear")
    if kind != PROJECTOR_TYPE:
        problems.append(f"the projector is {kind!r}, {where} has {PROJECTOR_TYPE!r} only")
    if getattr(config, "mm_use_im_start_end", False):
        problems.append(f"mm_use_im_start_end: images between marks of their own have no place in {where}")
    return problems


def export(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    processor: BaseImageProcessor,
    output: str | Path,
    template: Conversation | None = None,
) -> list[str]:
    """Writes the folder, whole or not at all, and returns notes for the user; raises `ExportError`.

    Args:
        model: a loaded LLaVA with its tower and no unmerged LoRA.
        template: becomes the chat template of tokenizer and processor.
    """
    tower = model.get_vision_tower()
    check_exportable(model.config, tower)
    tokenizer, notes = _with_image_token(tokenizer)
    image_token = tokenizer.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)
    state = _stock_state(model, tower, rows=_vocabulary(model, tokenizer))
    config = _stock_config(model, tower, image_token, len(state["language_model.model.embed_tokens.weight"]))
    _check_against_stock(config, state, tower.file_prefix)
    if config.tie_word_embeddings:
        del state["language_model.lm_head.weight"]
    jinja = None if template is None else chat_template(template)
    if getattr(model.config, "image_aspect_ratio", None) == "pad":
        processor = _padding(processor)
        notes.append("images are padded to a square by LlavaImageProcessor, which releases before 4.50 do not have")
    stock_processor = _stock_processor(model, tokenizer, processor, config.vision_feature_select_strategy, jinja)
    with folder_written_whole(output, bytes_of(state)) as aside:
        save_torch_state_dict(state, aside, max_shard_size="5GB")
        config.architectures = [STOCK_CLASSES[config.model_type]]
        config.save_pretrained(aside)
        _stock_generation(model, tokenizer, image_token, template).save_pretrained(aside)
        stock_processor.save_pretrained(aside)
        _write_image_processor(stock_processor.image_processor, aside)
        finish_folder(aside, tokenizer, Path(output).name)
        _keep_tokenizer_as_is(aside)
    return notes


def _write_image_processor(processor: BaseImageProcessor, folder: Path) -> None:
    """Writes preprocessor_config.json: transformers 4 reads it, and does not know the names of classes with "Pil"."""
    processor.save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["image_processor_type"] = values["image_processor_type"].removesuffix("Pil")
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _with_image_token(tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """A copy with the token `<image>` that pads on the left, for generation in batches."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([AddedToken(DEFAULT_IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    tokenizer.padding_side = "left"
    notes = []
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        notes.append(f"the tokenizer had no padding token; {tokenizer.pad_token} is used")
    return tokenizer, notes


def _vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows of the embeddings: unchanged if one is free for `<image>`, otherwise rounded up."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= rows:
        return rows
    return -(-len(tokenizer) // _ROUND_VOCABULARY_TO) * _ROUND_VOCABULARY_TO


def _stock_state(model: Any, tower: Any, rows: int) -> dict[str, torch.Tensor]:
    """Weights by the stock class's names. New rows are the mean of the old, so that they are never the argmax."""
    inside = "model.vision_tower.vision_tower."
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(inside):
            name = f"vision_tower.{tower.file_prefix}{name.removeprefix(inside)}"
        elif name.startswith("model.mm_projector."):
            index, rest = name.removeprefix("model.mm_projector.").split(".", 1)
            name = f"multi_modal_projector.linear_{1 + int(index) // 2}.{rest}"
        elif name == f"model.{NEWLINE}":
            if not model.tiling.several:
                # It is trained and stored, but one view has no lines.
                continue
            name = NEWLINE
        else:
            name = f"language_model.{name}"
        if name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
            extra = rows - len(tensor)
            if extra:
                tensor = torch.cat([tensor, tensor.float().mean(0, keepdim=True).to(tensor.dtype).expand(extra, -1)])
        state[name] = tensor.detach().contiguous()
    return state


def _stock_config(model: Any, tower: Any, image_token: int, rows: int) -> HFLlavaConfig | LlavaNextConfig:
    ours = model.config.to_dict()
    text_class = CONFIG_MAPPING[family_of(model.config).backbone_type]
    known = set(text_class().to_dict()) - {"model_type", "architectures", "transformers_version", "_name_or_path"}
    text = text_class(**{name: ours[name] for name in known if name in ours} | {"vocab_size": rows})
    # CLIP has a class token before the patches, SigLIP has none.
    state = tower.vision_tower.state_dict()
    positions = next(len(value) for name, value in state.items() if name.endswith("position_embedding.weight"))
    several = model.tiling.several
    config = (LlavaNextConfig if several else HFLlavaConfig)(
        vision_config=tower.cfg_only,
        text_config=text,
        image_token_index=image_token,
        image_seq_length=tower.num_patches,
        vision_feature_layer=getattr(tower, "select_layer", -2),
        vision_feature_select_strategy="default" if positions == tower.num_patches + 1 else "full",
        tie_word_embeddings=bool(ours.get("tie_word_embeddings")),
        dtype=model.dtype,
        **({"image_grid_pinpoints": turned(model.tiling.canvases)} if several else {}),
    )
    for name in CARRIED:
        if ours.get(name) is not None:
            setattr(config, name, ours[name])
    return config


def _check_against_stock(config: Any, state: dict[str, torch.Tensor], file_prefix: str) -> None:
    """The stock class must have exactly these names and shapes."""
    with torch.device("meta"):
        stock = getattr(transformers, STOCK_CLASSES[config.model_type])(config)
    level = "model.vision_tower."
    wanted = {
        our_name(name).replace(level, f"{level}vision_tower.{file_prefix}", 1): tuple(tensor.shape)
        for name, tensor in stock.state_dict().items()
    }
    found = {our_name(name): tuple(tensor.shape) for name, tensor in state.items()}
    if found != wanted:
        differing = sorted(set(found.items()) ^ set(wanted.items()))
        raise ExportError(
            f"the model's weights are not those of transformers' LLaVA over {config.text_config.model_type}: "
            f"{len(differing)} differ, such as {differing[0]}"
        )


def _stock_generation(model: Any, tokenizer: PreTrainedTokenizerBase, image_token: int, template: Any) -> Any:
    """Generation settings: stops at the template's end of turn, and never generates `<image>`."""
    generation = copy.deepcopy(model.generation_config)
    stops = {tokenizer.eos_token_id}
    if template is not None and template.stop is not None:
        stops |= {tokenizer.convert_tokens_to_ids(template.stop)} - {tokenizer.unk_token_id}
    stops = sorted(token for token in stops if isinstance(token, int))
    generation.eos_token_id = stops[0] if len(stops) == 1 else stops
    generation.pad_token_id = tokenizer.pad_token_id
    generation.suppress_tokens = [image_token]
    return generation


def _padding(processor: BaseImageProcessor) -> LlavaImageProcessorPil:
    """The processor with `do_pad`, which pads images to a square as our `process_image` does."""
    return LlavaImageProcessorPil(**processor_settings(processor) | {"do_pad": True})


def _stock_processor(
    model: Any, tokenizer: Any, processor: Any, strategy: str, jinja: str | None
) -> LlavaProcessor | LlavaNextProcessor:
    tower, tiling = model.get_vision_tower(), model.tiling
    if jinja is not None:
        tokenizer.chat_template = jinja
    patches = (tower.cfg_only.image_size // tower.cfg_only.patch_size) ** 2
    return (LlavaNextProcessor if tiling.several else LlavaProcessor)(
        image_processor=tiling.image_processor(processor) if tiling.several else processor,
        tokenizer=tokenizer,
        patch_size=tower.cfg_only.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(strategy == "default" or tower.num_patches == patches + 1),
        chat_template=jinja,
    )


def _keep_tokenizer_as_is(folder: Path) -> None:
    """Makes transformers use tokenizer.json unchanged, and keeps the word-start mark after an image.

    Our prompts are encoded piece by piece, and SentencePiece puts a mark before the line break that follows an image.
    In one pass over the whole text, a normalizer must add it.
    """
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    scheme = (tokenizer.get("pre_tokenizer") or {}).get("prepend_scheme")
    if scheme == "first" and tokenizer.get("normalizer") is None:
        tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": "\\A\\n"}, "content": " \n"}
        file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings_file.write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
