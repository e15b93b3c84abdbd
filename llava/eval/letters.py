"""The rule that reads an option's letter from a free reply. It is frozen: scores by another version do not compare.

In order, and the first that decides ends the search:
1. the reply is a letter, alone or with marks: "B", "(b)", "B.";
2. it begins as an option is written: "B. a cat", "(B) a cat", "B: a cat", "B) a cat";
3. it says "answer is B", "answer: B", "option B", "choice B", for one letter only; in "answer: A bus" the "A" begins
   the text of an option, which then is the one chosen;
4. it is the text of one option, or contains the text of exactly one as whole words, and is not longer than twice all
   options together;
5. exactly one letter stands among its last four words as a capital by itself. "A" counts only as the last word, for
   elsewhere it is an article.
Replies that refuse, name several letters or say none of this are not read: they count as wrong, and as parse failures.
"""

import re
from collections.abc import Sequence

VERSION = "letters-1"

_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}\"'`", " "))
_STARTS = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])[.):])(?:\s|$)")
_SAYS = re.compile(r"\b(?i:answer|option|choice)\b\s*(?:is|would be|should be)?[\s:(\[*\"']*([A-Z])(?![A-Za-z'])")
# "B or C" names two.
_OR = re.compile(r"\b([A-Z])\b[)\].,]*\s*(?:or|and|/|,)\s*[(\[]*([A-Z])\b")
_REFUSALS = (
    "i cannot",
    "i can't",
    "cannot be determined",
    "sorry",
    "unable to",
    "none of the above",
    "not possible to",
)


def read_letter(reply: str, options: Sequence[str]) -> str | None:
    """The letter of the option that a reply chooses; None where the rule finds none.

    Args:
        options: texts of the options, in the order of their letters from A.
    """
    letters = [chr(ord("A") + i) for i in range(len(options))]
    words = reply.translate(_MARKS).split()
    if len(words) == 1 and len(words[0]) == 1:
        return words[0].upper() if words[0].upper() in letters else None
    start = _STARTS.match(reply)
    if start:
        letter = start.group(1) or start.group(2)
        return letter if letter in letters else None
    if any(set(found) <= set(letters) and found[0] != found[1] for found in _OR.findall(reply)):
        return None
    said = {_named(reply[found.start(1) :], options, letters) for found in _SAYS.finditer(reply)} & set(letters)
    if said:
        return said.pop() if len(said) == 1 else None
    return _by_text(reply, options, letters) or _last_letter(reply, words, letters)


def _named(rest: str, options: Sequence[str], letters: Sequence[str]) -> str:
    """The letter at the start of the rest of a reply; that of an option's text, if the letter is the text's article."""
    for letter, option in zip(letters, options, strict=True):
        text = _plain(option)
        if len(text) > 1 and re.match(rf"{re.escape(text)}(?!\w)", _plain(rest)):
            return letter
    return rest[0]


def _by_text(reply: str, options: Sequence[str], letters: Sequence[str]) -> str | None:
    plain = _plain(reply)
    texts = [_plain(option) for option in options]
    equal = [letter for letter, text in zip(letters, texts, strict=True) if text and text == plain]
    if len(equal) == 1:
        return equal[0]
    if len(reply) > 2 * sum(map(len, options)):
        return None
    inside = [
        letter
        for letter, text in zip(letters, texts, strict=True)
        if text and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", plain)
    ]
    return inside[0] if len(inside) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".").strip()


def _last_letter(reply: str, words: Sequence[str], letters: Sequence[str]) -> str | None:
    if any(words_ in reply.lower() for words_ in _REFUSALS):
        return None
    found = [(i, word) for i, word in enumerate(words) if word in letters]
    named = [(i, word) for i, word in found if word != "A" or i == len(words) - 1]
    if len(named) != 1 or named[0][0] < len(words) - 4:
        return None
    return named[0][1]
