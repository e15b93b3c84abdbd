"""A conversation with a model about images, with streamed answers."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER
from llava.conversation import Conversation
from llava.eval.answering.answerer import Generation
from llava.mm_utils import image_mark, process_images, tokenizer_image_token
from llava.tokenization import ids_to_text


class ChatError(ValueError):
    """A turn that cannot be answered."""


@dataclass(frozen=True)
class Pace:
    """How fast an answer came.

    Attributes:
        tokens: new tokens, with the end of the turn.
        first: seconds from the prompt to the first token, with the vision tower.
        rate: tokens a second after the first one; None for a single token.
    """

    tokens: int
    first: float
    rate: float | None

    @classmethod
    def of(cls, started: float, times: Sequence[float]) -> "Pace | None":
        """From the time of the prompt and of each token; None without a token."""
        if not times:
            return None
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else None
        return cls(len(times), times[0] - started, rate)


class Interrupt(StoppingCriteria):
    """Ends a generation from another thread; `times` has the time of each new token."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.times: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        self.times.append(time.perf_counter())
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class _Streamer(TextIteratorStreamer):
    """Yields the text of the tokens so far as it grows; a character whose bytes are not all there is held back."""

    def put(self, value: torch.Tensor) -> None:
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        self.token_cache += value.tolist()
        self._print(ids_to_text(self.tokenizer, self.token_cache).rstrip("\ufffd"))

    def end(self) -> None:
        self._print(ids_to_text(self.tokenizer, self.token_cache), stream_end=True)

    def _print(self, text: str, stream_end: bool = False) -> None:
        self.on_finalized_text(text[self.print_len :], stream_end)
        self.print_len = len(text)


class ChatSession:
    """The turns and the images of one conversation; the images belong to the first question.

    `pace` is that of the last answer of `ask`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        processor: Any,
        template: Conversation,
        images: Sequence[Image.Image] = (),
        generation: Generation | None = None,
    ) -> None:
        if images and processor is None:
            raise ChatError("the model has no vision tower: it cannot be shown images")
        self.model = model
        self.tokenizer = tokenizer
        self.conversation = template.copy()
        self.generation = generation or Generation()
        self.pace: Pace | None = None
        self.pixels: Any = None
        self.sizes = [image.size for image in images]
        self.waiting = len(images)
        if images:
            pixels = [p.to(model.device, model.dtype) for p in process_images(list(images), processor, model.config)]
            self.pixels = torch.stack(pixels) if len({p.shape for p in pixels}) == 1 else pixels

    def with_images(self, text: str) -> str:
        """The text with a mark for each new image: at `<image-placeholder>` or `<image>`, by default in front."""
        mark = image_mark(getattr(self.model.config, "mm_use_im_start_end", False))
        placed = text.count(IMAGE_PLACEHOLDER) + text.count(DEFAULT_IMAGE_TOKEN)
        if placed and placed != self.waiting:
            raise ChatError(f"the text has places for {placed} images, and there are {self.waiting} to show")
        if placed:
            return text.replace(IMAGE_PLACEHOLDER, DEFAULT_IMAGE_TOKEN).replace(DEFAULT_IMAGE_TOKEN, mark)
        return f"{mark}\n" * self.waiting + text

    def prompt(self, text: str) -> str:
        """The prompt for this question."""
        return self._asked(text).get_prompt()

    def ask(self, text: str) -> Iterator[str]:
        """Yields the answer piece by piece, and then adds the turn to the conversation.

        Closing the iterator ends the generation and keeps the text so far. Raises `ChatError` if the conversation is
        longer than the model's context.
        """
        conversation, ids = self._encoded(text)
        streamer = _Streamer(self.tokenizer)
        interrupt, failure = Interrupt(), []

        def generate() -> None:
            try:
                self._generate(ids, streamer=streamer, stopping_criteria=StoppingCriteriaList([interrupt]))
            except BaseException as error:  # raised again in the reading thread
                failure.append(error)
                streamer.on_finalized_text("", stream_end=True)

        worker = threading.Thread(target=generate, daemon=True)
        started = time.perf_counter()
        worker.start()
        said = []
        try:
            for piece in _until(streamer, self._stop_text()):
                said.append(piece)
                yield piece
        finally:
            interrupt.event.set()
            worker.join()
            self.pace = Pace.of(started, interrupt.times)
            if not failure:
                self._keep(conversation, "".join(said))
        if failure:
            raise failure[0]

    def answer(self, text: str) -> str:
        """As `ask`, but returns the whole answer at once."""
        conversation, ids = self._encoded(text)
        text = ids_to_text(self.tokenizer, self._generate(ids)[0])
        answer = "".join(_until(iter([text]), self._stop_text())).strip()
        self._keep(conversation, answer)
        return answer

    @torch.inference_mode()
    def _generate(self, ids: torch.Tensor, **arguments: Any) -> torch.Tensor:
        return self.model.generate(
            ids.to(self.model.device),
            images=self.pixels,
            image_sizes=self.sizes,
            use_cache=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self._stop_ids(),
            **self.generation.arguments(),
            **arguments,
        )

    def _encoded(self, text: str) -> tuple[Conversation, torch.Tensor]:
        """The conversation with this question, and its ids `(1, length)`."""
        conversation = self._asked(text)
        ids = tokenizer_image_token(conversation.get_prompt(), self.tokenizer, return_tensors="pt").unsqueeze(0)
        length = ids.shape[1] + sum(self.model.tiling.tokens(size) - 1 for size in self.sizes)
        room = getattr(self.model.config, "max_position_embeddings", None)
        if room and length + self.generation.max_new_tokens > room:
            raise ChatError(
                f"the conversation is {length} tokens long; with {self.generation.max_new_tokens} new ones it exceeds "
                f"the model's {room}. Start again, or ask for fewer new tokens"
            )
        return conversation, ids

    def _keep(self, conversation: Conversation, answer: str) -> None:
        # An empty text would leave the turn open in the next prompt.
        conversation.messages[-1][1] = answer.strip() or " "
        self.conversation = conversation
        self.waiting = 0

    def _asked(self, text: str) -> Conversation:
        conversation = self.conversation.copy()
        conversation.append_message(conversation.roles[0], self.with_images(text))
        conversation.append_message(conversation.roles[1], None)
        return conversation

    def _stop_ids(self) -> list[int]:
        stops = {self.tokenizer.eos_token_id}
        if self.conversation.stop is not None and self._stop_text() is None:
            stops.add(self.tokenizer.convert_tokens_to_ids(self.conversation.stop))
        return sorted(token for token in stops if isinstance(token, int) and token >= 0)

    def _stop_text(self) -> str | None:
        """The end of a turn if it is ordinary text, such as "###" of the first LLaVA; None if it is a token."""
        stop = self.conversation.stop
        if stop is None:
            return None
        # One token alone may be another one after a line break, as "###" of Llama's tokenizer is.
        alone = self.tokenizer(stop, add_special_tokens=False).input_ids
        return None if alone == [self.tokenizer.convert_tokens_to_ids(stop)] else stop


def _until(pieces: Iterator[str], stop: str | None) -> Iterator[str]:
    """The text before `stop`; the end of a piece is delayed if `stop` may begin there."""
    if stop is None:
        yield from (piece for piece in pieces if piece)
        return
    held = ""
    for piece in pieces:
        held += piece
        if stop in held:
            before = held.split(stop, 1)[0]
            if before:
                yield before
            return
        keep = next((n for n in range(min(len(stop) - 1, len(held)), 0, -1) if stop.startswith(held[-n:])), 0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held
