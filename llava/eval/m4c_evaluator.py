"""TextVQA's soft accuracy over ten annotators, with upstream's class names (rules: VQA's official evaluation)."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ANNOTATORS = 10

# Contractions whose apostrophes people leave out. VQA's table maps each, with any one apostrophe dropped, to itself.
_WORDS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


class EvalAIAnswerProcessor:
    """Converts an answer to the form in which answers are compared."""

    # The one entry of VQA's table that maps the other way is kept, so that scores are equal.
    CONTRACTIONS = {
        word[:i] + word[i + 1 :]: word for word in _WORDS.split() for i, letter in enumerate(word) if letter == "'"
    } | {"somebody'd": "somebodyd"}
    NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    NUMBER_MAP = {word: str(number) for number, word in enumerate(NUMBER_WORDS)} | {"none": "0"}
    ARTICLES = ("a", "an", "the")
    PUNCTUATIONS = ';/[]"{}()=+\\_-<>@`,?!'
    # A full stop stays if a digit follows. At most 32 are removed: upstream passes a flag in the place of the count.
    PERIOD_STRIP = re.compile(r"\.(?!\d)")
    MOST_PERIODS = 32

    def word_tokenize(self, word: str) -> str:
        return word.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()

    def process_punctuation(self, text: str) -> str:
        """Deletes a mark if it is next to a blank anywhere in the text; replaces it by a blank otherwise."""
        result = text
        for mark in self.PUNCTUATIONS:
            result = result.replace(mark, "" if f"{mark} " in text or f" {mark}" in text else " ")
        return self.PERIOD_STRIP.sub("", result, count=self.MOST_PERIODS)

    def process_digit_article(self, text: str) -> str:
        words = (self.NUMBER_MAP.get(word, word) for word in text.lower().split())
        return " ".join(self.CONTRACTIONS.get(word, word) for word in words if word not in self.ARTICLES)

    def __call__(self, item: str) -> str:
        text = self.word_tokenize(item).replace("\n", " ").replace("\t", " ").strip()
        return self.process_digit_article(self.process_punctuation(text))


class TextVQAAccuracyEvaluator:
    """Accuracy that grows with the number of annotators who gave the answer."""

    def __init__(self) -> None:
        self.answer_processor = EvalAIAnswerProcessor()

    def answer_scores(self, raw_answers: Sequence[str]) -> dict[str, float]:
        """Score of each normalised answer: the mean over the annotators of min(1, matches among the other nine / 3).

        Raises:
            ValueError: not exactly ten answers.
        """
        if len(raw_answers) != ANNOTATORS:
            raise ValueError(f"a question needs exactly {ANNOTATORS} answers; this one has {len(raw_answers)}")
        answers = Counter(self.answer_processor(answer) for answer in raw_answers)
        return {answer: _soft(count) for answer, count in answers.items()}

    def score(self, said: str, raw_answers: Sequence[str]) -> float:
        return self.answer_scores(raw_answers).get(self.answer_processor(said), 0.0)

    def eval_pred_list(self, pred_list: Iterable[Mapping[str, Any]]) -> float:
        """Upstream's entry: mean score of entries with `pred_answer` and `gt_answers`."""
        scores = [self.score(entry["pred_answer"], entry["gt_answers"]) for entry in pred_list]
        return sum(scores) / len(scores)


def _soft(count: int) -> float:
    """Mean over ten annotators, `count` of whom gave the answer: those see one match fewer among the other nine."""
    others = min(1.0, count / 3) * (ANNOTATORS - count)
    own = min(1.0, (count - 1) / 3) * count
    return (others + own) / ANNOTATORS
