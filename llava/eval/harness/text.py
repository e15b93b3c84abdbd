"""Our checkpoints as a model of lm-eval (PyPI: lm-eval), for its tasks of text. Tower and projector are not loaded.

Requests, prompts and metrics are lm-eval's; log-likelihoods and answers are computed by the code of our own benchmarks.
docs/harnesses.md lists what is equal and what differs.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from llava.chat_template import chat_template as jinja_of
from llava.eval.answering.answerer import Answerer
from llava.eval.answering.batching import until_done
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.loglikelihood import loglikelihoods
from llava.eval.answering.questions import Question
from llava.eval.answering.rolling import encode_after_prefix, prefix_of, rolling_pieces
from llava.eval.harness.opened import NAME, HarnessModel, note
from llava.names import count
from llava.tokenization import encoder_for


@dataclass
class TextAnswerer(Answerer):
    """Continues prompts as lm-eval renders them.

    Attributes:
        longest: tokens that the model reads at once; a prompt that leaves no room for the answer loses its beginning.
        cut: indices of the questions whose prompts did.
    """

    longest: int = 0
    cut: set[int] = field(default_factory=set)

    def prompt_ids(self, question: Question) -> torch.Tensor:
        ids = encoder_for(self.tokenizer).encode_prompt(question.text) or [prefix_of(self.tokenizer)]
        room = self.longest - self.generation.max_new_tokens
        if room < 1:
            raise EvaluationError(
                f"a task asks for {self.generation.max_new_tokens} new tokens, and the model reads {self.longest}; "
                "give --gen_kwargs max_gen_toks=N"
            )
        if len(ids) > room:
            self.cut.add(question.index)
        return torch.tensor(ids[-room:], dtype=torch.long)


@register_model(NAME)
class LlavaVR(HarnessModel, LM):
    """A checkpoint of this project: full, LoRA, projector, merged or pruned, of any family."""

    answers_as = TextAnswerer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answerer.longest = self.max_length
        self.jinja = self.tokenizer.chat_template if self.template is None else jinja_of(self.template)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """For each request `(context, continuation)` the sum of log-probabilities, and whether all are the highest."""
        size, cut = self.rows(), 0

        def work(left: list[int]) -> Any:
            nonlocal cut
            pairs = [(requests[place].args[0], requests[place].args[1:]) for place in left]
            for row, _, found in loglikelihoods(self.model, self.tokenizer, pairs, size, self.max_length):
                result = found.total, found.greedy
                self.cache_hook.add_partial("loglikelihood", requests[left[row]].args, result)
                cut += found.cut > 0
                yield left[row], result

        results = until_done(size, range(len(requests)), work)
        self._note_cut(cut, len(requests))
        return results

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The log-likelihood of each document, read in windows of `max_length` tokens."""
        texts = {str(place): (text, text) for place, (text,) in enumerate(request.args for request in requests)}
        documents = encode_after_prefix(self.tokenizer, texts, bos=True)
        # A window is as long as the model can read: "auto" means one at a time.
        pieces = rolling_pieces(self.model, documents, self.max_length, int(self.batch_size or 1))
        results = [-piece.nll for piece in pieces]
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, result)
        return results

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The text after each request `(context, generation_kwargs)`, cut before a stop string."""
        asked = [request.args for request in requests]
        questions = [Question(place, place, context, None) for place, (context, _) in enumerate(asked)]
        texts = self.respond(requests, questions, [kwargs for _, kwargs in asked])
        self._note_cut(len(self.answerer.cut), len(requests))
        self.answerer.cut.clear()
        return texts

    def _note_cut(self, cut: int, of: int) -> None:
        if cut:
            limit = f"do not fit into {self.max_length} tokens and lost their beginning"
            note(f"{cut} of {count(of, 'prompt')} {limit}, as with lm-eval's own models")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation in the checkpoint's template; without `add_generation_prompt` its last turn stays open."""
        self.chat_template()
        return self.tokenizer.apply_chat_template(
            chat_history,
            chat_template=self.jinja,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def chat_template(self, chat_template: bool | str = True) -> str | None:
        """The Jinja of the checkpoint's template; a name is refused."""
        if isinstance(chat_template, str):
            hint = f"give --model_args conv_mode={chat_template}"
            raise EvaluationError(f"--apply_chat_template takes no name here; {hint}")
        if self.jinja is None:
            raise EvaluationError(f"{self.template_name} is the template of captions, without turns; give conv_mode=")
        return self.jinja
