"""From questions to texts: the prompt around a question, its image, and how the answer is decoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from llava.conversation import Conversation
from llava.data.feature_cache import FeatureCache
from llava.eval.answering.batching import Batch, BatchSize, ImageTokens, plan
from llava.eval.answering.decoding import decode
from llava.eval.answering.forest import Prompt
from llava.eval.answering.questions import Question, open_question_image, question_image_sizes
from llava.mm_utils import image_mark, process_image, tokenizer_image_token
from llava.tiling import Size
from llava.tokenization import ids_to_text

_TOWER_BATCH = 32
"""Views."""
_NEUTRAL = {
    **dict.fromkeys(("repetition_penalty", "guidance_scale"), 1),
    **dict.fromkeys(("no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id")),
}
"""Settings of generation_config.json that change which token is chosen, with the value that changes nothing."""


@dataclass(frozen=True)
class Generation:
    """How answers are decoded.

    Attributes:
        temperature: 0 takes the most probable token.
        stop_strings: texts that end an answer and are cut off with all that follows.
        seed: of sampling, together with the question's place in its file.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float | None = None
    num_beams: int = 1
    stop_strings: tuple[str, ...] = ()
    seed: int = 0

    def arguments(self) -> dict[str, Any]:
        """Arguments of transformers' `generate`."""
        arguments = {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams}
        if self.temperature <= 0:
            return arguments | {"do_sample": False}
        nucleus = {} if self.top_p is None else {"top_p": self.top_p}
        return arguments | {"do_sample": True, "temperature": self.temperature} | nucleus

    def seed_of(self, index: int) -> int:
        """The seed of one question; torch's generator on a CPU reads 32 bits only."""
        return (self.seed * 0x9E3779B1 + index) % (1 << 32)


@dataclass
class Answerer:
    """A model with all that turns a question into its answer.

    Attributes:
        processor: image processor; unused if `feature_cache` is given.
        template: the conversation around a question; None passes the question's text to the model unchanged.
        own_template: the tokenizer's chat template takes the place of `template`; for models without images.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    processor: Any
    template: Conversation | None
    image_folder: Path
    generation: Generation = field(default_factory=Generation)
    feature_cache: FeatureCache | None = None
    own_template: bool = False

    def __post_init__(self) -> None:
        self._sizes: dict[str, Size] = {}
        self._tokens: dict[str, int] = {}
        self.forget_images()

    def prompt_ids(self, question: Question) -> torch.Tensor:
        """Ids `(length,)` of the prompt up to the answer; -200 where the image goes."""
        mark = image_mark(getattr(self.model.config, "mm_use_im_start_end", False))
        text = f"{mark}\n{question.text}" if question.image else question.text
        if self.own_template:
            turn = [{"role": "user", "content": text}]
            ids = self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
            return torch.tensor(ids, dtype=torch.long)
        if self.template is not None:
            conversation = self.template.copy()
            conversation.append_message(conversation.roles[0], text)
            conversation.append_message(conversation.roles[1], None)
            text = conversation.get_prompt()
        return tokenizer_image_token(text, self.tokenizer, return_tensors="pt")

    def prompt(self, question: Question) -> Prompt:
        return Prompt(tuple(self.prompt_ids(question).tolist()), (question.image,) if question.image else ())

    def batches(
        self, questions: Sequence[Question], size: BatchSize | int | None = None, share: bool | None = None
    ) -> list[Batch]:
        """The questions' prompts in batches; `size` None takes what fits, `share` is that of `plan`."""
        new_tokens = self.generation.max_new_tokens
        if not isinstance(size, BatchSize):
            size = BatchSize.of(size, self.model, new_tokens)
        self._read_sizes(questions)
        prompts = [self.prompt(question) for question in questions]
        share = share if self.decodes_itself else False
        return plan(prompts, self.image_tokens, size, share, new_tokens, self.model.config)

    @property
    def image_tokens(self) -> ImageTokens:
        """Tokens of an image in the prompt, 0 without a tower; if images have several views, of each by name."""
        tiling = self.model.tiling
        return self._tokens if tiling is not None and tiling.several else self.model.image_tokens

    def _read_sizes(self, questions: Sequence[Question]) -> None:
        """Reads the sizes of the questions' images that are not known yet, if images have several views."""
        tiling = self.model.tiling
        if tiling is not None and tiling.several:
            new = [question for question in questions if question.image and question.image not in self._sizes]
            sizes = self.picture_sizes(new)
            self._sizes |= sizes
            self._tokens |= {name: tiling.tokens(size) for name, size in sizes.items()}

    def picture_sizes(self, questions: Sequence[Question]) -> dict[str, Size]:
        """Width and height in pixels of the questions' images, by name."""
        return question_image_sizes(questions, self.image_folder)

    @property
    def decodes_itself(self) -> bool:
        """Whether `decode` can; beam search and the rarer settings are left to transformers' `generate`."""
        config = self.model.generation_config
        neutral = all(getattr(config, name, None) in (None, value) for name, value in _NEUTRAL.items())
        return neutral and self.generation.num_beams == 1

    def load(self, question: Question) -> torch.Tensor:
        """The question's image: pixels `(3, height, width)`, or features `(patches, mm_hidden_size)` of the cache.

        Of several views, both have one dimension more in front.
        """
        if self.feature_cache is not None:
            return self.feature_cache.features(self.image_folder / question.image)
        ratio = getattr(self.model.config, "image_aspect_ratio", None)
        return process_image(self.picture(question), self.processor, ratio, self.model.tiling)

    def picture(self, question: Question) -> Image.Image:
        """The question's image before processing, as RGB."""
        return open_question_image(question, self.image_folder)

    def inputs(self, questions: Sequence[Question]) -> dict[str, Any]:
        """Arguments of `generate`: ids padded on the left with their mask, and pixels or features."""
        rows = [self.prompt_ids(question) for question in questions]
        pad = partial(pad_sequence, batch_first=True, padding_side="left")
        batch: dict[str, Any] = {
            "inputs": pad(rows, padding_value=self.tokenizer.pad_token_id or 0),
            "attention_mask": pad([torch.ones_like(row) for row in rows]),
        }
        batch = {name: value.to(self.model.device) for name, value in batch.items()}
        shown = [question for question in questions if question.image]
        return batch | (self._images(shown, {}) if shown else {})

    def _images(self, questions: Sequence[Question], loaded: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Arguments of the model for the images of questions, one each: pixels or features, and sizes if needed."""
        given = [loaded[q.image] if q.image in loaded else self.load(q) for q in questions]
        given = [one.to(self.model.device) for one in given]
        alike = len({one.shape for one in given}) == 1
        name = "images" if self.feature_cache is None else "image_features"
        arguments: dict[str, Any] = {name: torch.stack(given) if alike else given}
        self._read_sizes(questions)
        if self._sizes:
            arguments["image_sizes"] = [self._sizes[question.image] for question in questions]
        return arguments

    def answer(
        self,
        questions: Sequence[Question],
        prompts: Sequence[Prompt] | None = None,
        loaded: Mapping[str, torch.Tensor] | None = None,
    ) -> list[str]:
        """The answers' texts, without special tokens, stripped, cut before a stop string (see `continuations`)."""
        return [text.strip() for text in self.continuations(questions, prompts, loaded)]

    @torch.inference_mode()
    def continuations(
        self,
        questions: Sequence[Question],
        prompts: Sequence[Prompt] | None = None,
        loaded: Mapping[str, torch.Tensor] | None = None,
    ) -> list[str]:
        """What follows the prompts: without special tokens, cut before a stop string, blanks at the ends kept.

        Args:
            prompts: the questions' prompts as planned, if some share ids.
            loaded: image name -> what `load` returns, if images were loaded ahead.
        """
        stop_ids, strings = self.stops()
        generation = self.generation
        seeds = [generation.seed_of(question.index) for question in questions]
        if self.decodes_itself:
            output = decode(
                self.model,
                [self.prompt(question) for question in questions] if prompts is None else prompts,
                self._image_blocks(questions, loaded or {}),
                generation.max_new_tokens,
                stop_ids,
                (lambda tokens: self._holds_stop(tokens, strings)) if strings else None,
                generation.temperature,
                generation.top_p,
                seeds,
            )
        else:
            if generation.temperature > 0:
                torch.manual_seed(seeds[0])
            output = self.model.generate(
                **self.inputs(questions),
                **generation.arguments(),
                use_cache=True,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=sorted(stop_ids),
            )
        texts = [ids_to_text(self.tokenizer, tokens) for tokens in output]
        for string in strings:
            texts = [text.split(string, 1)[0] for text in texts]
        return texts

    def _image_blocks(self, questions: Sequence[Question], loaded: Mapping[str, torch.Tensor]) -> dict:
        """Image name -> image tokens. Those of the last batch are kept: the next one often has the same image."""
        wanted = {question.image: question for question in questions if question.image}
        self._blocks = {name: block for name, block in self._blocks.items() if name in wanted}
        new = [name for name in wanted if name not in self._blocks]
        step = max(1, _TOWER_BATCH // self.model.tiling.most_views) if new else 1
        for start in range(0, len(new), step):
            names = new[start : start + step]
            blocks = self.model.get_model().image_blocks(**self._images([wanted[name] for name in names], loaded))
            self._blocks.update(zip(names, blocks, strict=True))
        return self._blocks

    def stops(self) -> tuple[set[int], tuple[str, ...]]:
        """Tokens and strings that end an answer."""
        known = self.model.generation_config.eos_token_id
        ids = {self.tokenizer.eos_token_id, *(known if isinstance(known, list | tuple) else [known])}
        strings = self.generation.stop_strings
        stop = None if self.template is None else self.template.stop
        for string in (*strings, stop) if stop else strings:
            encoded = self.tokenizer(string, add_special_tokens=False).input_ids
            if len(encoded) == 1 and self.tokenizer.convert_tokens_to_ids(string) == encoded[0]:
                ids.add(encoded[0])
            elif string == stop:
                strings = (*strings, stop)
        return {token for token in ids if isinstance(token, int) and token >= 0}, strings

    def forget_images(self) -> None:
        """Drops the image tokens that are kept for the next batch."""
        self._blocks: dict[str, torch.Tensor] = {}

    def _holds_stop(self, tokens: list[int], strings: Sequence[str]) -> bool:
        # Each token is at least one byte of text, and a stop that ended earlier would have been seen then.
        window = 4 + max(len(string.encode()) for string in strings)
        text = ids_to_text(self.tokenizer, tokens[-window:])
        return any(string in text for string in strings)
