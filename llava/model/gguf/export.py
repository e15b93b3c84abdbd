"""Export of a checkpoint to GGUF: all checks, then the files, tensor by tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFType, GGUFWriter

from llava.chat_template import chat_template
from llava.checkpoint.card import write_card
from llava.checkpoint.merged import merged_tensors
from llava.checkpoint.opened import Checkpoint
from llava.checkpoint.tensors import Stored
from llava.checkpoint.tokenizer import load_tokenizer
from llava.conversation import OWN_TEMPLATE, get_template
from llava.files import folder_written_whole
from llava.model.export import ExportError
from llava.model.gguf.language import (
    ARCHITECTURES,
    add_language_keys,
    language_notes,
    language_problems,
    language_tensors,
)
from llava.model.gguf.projector import add_projector_keys, projector_notes, projector_problems, projector_tensors
from llava.model.gguf.vocabulary import vocabulary_of
from llava.model.gguf.writing import FILE_TYPES, GGUFFile, write_files
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.tower_weights import trained_tower_files
from llava.outputs import GGUF_MODEL, GGUF_PROJECTOR


@dataclass(frozen=True)
class GGUFExport:
    """What will be written: files by name, and notes for the user."""

    checkpoint: Checkpoint
    files: dict[str, GGUFFile]
    notes: list[str]

    @property
    def nbytes(self) -> int:
        return sum(file.nbytes for file in self.files.values())

    def write(self, output: str | Path) -> None:
        """Writes the folder, with a model card, whole or not at all."""
        with folder_written_whole(output, self.nbytes) as aside:
            write_files(self.files, aside)
            config = self.checkpoint.model_config().to_dict()
            if GGUF_PROJECTOR not in self.files:
                config |= {"mm_vision_tower": None, "mm_projector_type": None}
            write_card(aside, config, Path(output).name, run=self.checkpoint.path)


def prepare_export(
    checkpoint: Checkpoint,
    name: str,
    dtype: torch.dtype | None = None,
    conv_mode: str | None = None,
    vision_tower: str | None = None,
    text_only: bool = False,
) -> GGUFExport:
    """Makes every check and plans the files; the language model's weights are not read.

    Args:
        name: of the model, for `general.name`.
        dtype: float32, float16 or bfloat16; default: the one that the language model is stored in.
        conv_mode: the template that becomes the chat template; default: the checkpoint's.
        vision_tower: replaces the recorded tower.
        text_only: leaves tower and projector out.

    Raises:
        ExportError: names everything that llama.cpp does not have.
    """
    config = checkpoint.model_config(vision_tower)
    with_tower = getattr(config, "mm_vision_tower", None) and not text_only
    tower = build_vision_tower(config, delay_load=True) if with_tower else None
    problems = language_problems(checkpoint)
    vision = projector_problems(config, tower) if tower else []
    if problems or vision:
        advice = "; --text-only exports the language model alone" if vision and not problems else ""
        raise ExportError("the model cannot be exported as GGUF: " + "; ".join(problems + vision) + advice)
    dtype = dtype or (checkpoint.stored_dtype if checkpoint.stored_dtype in FILE_TYPES else torch.float32)
    tensors = merged_tensors(checkpoint, dtype)
    files = {GGUF_MODEL: _language_file(checkpoint, tensors, name, dtype, conv_mode)}
    if tower:
        tower.check_files()
        tower.trained_files = trained_tower_files(checkpoint)
        writer = _writer(MODEL_ARCH.MMPROJ, GGUFType.MMPROJ, name)
        add_projector_keys(writer, config, tower, dtype)
        files[GGUF_PROJECTOR] = GGUFFile(writer, projector_tensors(tower, tensors, dtype))
    return GGUFExport(checkpoint, files, language_notes(config) + (projector_notes(config, tower) if tower else []))


def _language_file(
    checkpoint: Checkpoint, tensors: Mapping[str, Stored], name: str, dtype: torch.dtype, conv_mode: str | None
) -> GGUFFile:
    config = checkpoint.model_config()
    named = language_tensors(checkpoint, tensors, dtype)
    tokenizer = load_tokenizer(checkpoint.tokenizer_folder)
    mode = conv_mode or checkpoint.question_template
    template = None if mode == OWN_TEMPLATE else get_template(mode)
    jinja = chat_template(template) if template else tokenizer.chat_template
    vocabulary = vocabulary_of(tokenizer, config.vocab_size, template.stop if template else None, jinja)
    arch = ARCHITECTURES[checkpoint.family.backbone_type]
    if arch is MODEL_ARCH.PHI3 and any(token.rstrip for token in tokenizer.added_tokens_decoder.values()):
        # llama.cpp strips the white space after such tokens only if it reads this word in the name.
        name = f"{name} (Phi-3)"
    writer = _writer(arch, GGUFType.MODEL, name)
    add_language_keys(writer, config, dtype)
    vocabulary.add_to(writer)
    return GGUFFile(writer, named)


def _writer(arch: MODEL_ARCH, kind: str, name: str) -> GGUFWriter:
    writer = GGUFWriter(None, MODEL_ARCH_NAMES[arch])
    writer.add_type(kind)
    writer.add_name(name)
    return writer
