"""The rule that reads an option's letter from a free reply. It is frozen: scores by another version are not comparable.

In order, and the first that decides ends the search:
1. the reply is a letter, alone or with marks: "B", "(b)", "B.";
2. it begins by naming two letters, as in "(B) or (C)", or its lines begin as different options do: it is not read;
3. it begins as an option is written: "B. a cat", "(B) a cat", "B: a cat", "B) a cat";
4. it names two letters anywhere, as in "B or C": it is not read;
5. it says "answer is B", "answer: B", "option B", "choice B", for one letter only; in "answer: A bus" the "A" begins
   the text of an option, which then is the one chosen;
6. it is the text of one option, or contains the text of exactly one as whole words, and is not longer than twice all
   options together;
7. exactly one letter is among its last four words as a capital by itself. "A" counts only as the last word, because
   elsewhere it is an article.
A reply does not choose what it denies: from rule 3 on, the "B" of "not B", "neither B", "the answer isn't B", "I don't
think it is B", "B is not correct" and "B is wrong" is ignored, and so is the text of an option after such a word; of
"not B but C" the C is left.
Replies that refuse, name several letters or say none of this are not read: they count as wrong, and as parse failures.
"""

import re
from collections.abc import Sequence
from string import ascii_uppercase

VERSION = "letters-3"
LETTER_SUFFIX = "Answer with the option's letter from the given choices directly."
"""How LLaVA asks for a letter, and the paper in MMLU."""

_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}\"'`", " "))
_STARTS = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])[.):])(?:\s|$)")
_SAYS = re.compile(r"\b(?i:answer|option|choice)\b\s*(?:is|would be|should be)?[\s:(\[*\"']*([A-Z])(?![A-Za-z'])")
# "B or C" names two.
_OR = re.compile(r"\b([A-Z])\b[)\].,]*\s*(?:or|and|/|,)\s*[(\[]*([A-Z])\b")
_STARTS_WITH_TWO = re.compile(
    r"\s*[(\[]*([A-Z])(?:[)\].,:]*\s*(?:\bor\b|\band\b|/|,|&)\s*[(\[]*|\)\s*\()([A-Z])(?![A-Za-z'])"
)
_LINE_STARTS = re.compile(r"^\s*(?:\(([A-Z])\)|([A-Z])[.):])(?=\s|$)", re.MULTILINE)
_LETTER = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z'])")
_NOT = r"(?:not|[a-z]+n['\u2019]t|cannot|isnt)"
_DENIES_WHAT_FOLLOWS = re.compile(
    rf"""\b(?:
        (?:{_NOT}|no|never|neither|nor|without|except|(?:rather|other)\ than|instead\ of)
        (?:\ (?:be|the|option|choice|answer|letter|correct|right))*
    |
        {_NOT}\ (?:think|believe|suppose|say|agree|choose|pick|select|take)\b(?:\ (?!but\b|so\b)\w+){{0,8}}
    )[\ (\[*"']*$""",
    re.IGNORECASE | re.VERBOSE,
)
_IS_DENIED = re.compile(
    r"""[)\].*"']*\s+(?:(?:is|are|was|would\ be|can|could)(?:\s+not|n['\u2019]t)|cannot)
    \s+(?:be\s+)?(?:the\s+)?(?:correct|right|best|true|answer|option|choice)\b
    |[)\].*"']*\s+(?:is|are)\s+(?:wrong|incorrect|false)\b""",
    re.IGNORECASE | re.VERBOSE,
)
# A word further back than this does not deny what follows.
_REACH = 80
_REFUSALS = "i cannot|i can't|cannot be determined|sorry|unable to|none of the above|not possible to"


def read_letter(reply: str, options: Sequence[str]) -> str | None:
    """The letter of the option that a reply chooses; None if the rule finds none. The first option is A."""
    letters = list(ascii_uppercase[: len(options)])
    words = reply.translate(_MARKS).split()
    if len(words) == 1 and len(words[0]) == 1 and words[0].upper() in letters:
        return words[0].upper()
    # Several lines that begin as options do: the reply repeats the list.
    line_starts = {first or second for first, second in _LINE_STARTS.findall(reply)} & set(letters)
    if _two(_STARTS_WITH_TWO.match(reply), letters) or len(line_starts) > 1:
        return None
    left = _LETTER.sub(lambda found: "_" if _denied(reply, *found.span()) else found[0], reply)
    start = _STARTS.match(left)
    if start:
        letter = start[1] or start[2]
        return letter if letter in letters else None
    if any(_two(found, letters) for found in _OR.finditer(reply)):
        return None
    said = {_named(left[found.start(1) :], options, letters) for found in _SAYS.finditer(left)} & set(letters)
    if said:
        return said.pop() if len(said) == 1 else None
    return _by_text(reply, options, letters) or _last_letter(left, letters)


def _two(found: re.Match[str] | None, letters: Sequence[str]) -> bool:
    """Whether the two letters of a match are those of two options."""
    return found is not None and found[1] != found[2] and {found[1], found[2]} <= set(letters)


def _denied(text: str, begin: int, end: int) -> bool:
    """Whether a text says that the part from `begin` to `end` is not the answer."""
    before = " ".join(text[max(0, begin - _REACH) : begin].split())
    before += " " if text[:begin][-1:].isspace() else ""
    return bool(_DENIES_WHAT_FOLLOWS.search(before) or _IS_DENIED.match(text, end))


def _named(rest: str, options: Sequence[str], letters: Sequence[str]) -> str:
    """The letter at the start of the rest of a reply; that of an option's text, if the letter is the text's article."""
    for letter, option in zip(letters, options, strict=True):
        text = _plain(option)
        if len(text) > 1 and re.match(rf"{re.escape(text)}(?!\w)", _plain(rest)):
            return letter
    return rest[0]


def _by_text(reply: str, options: Sequence[str], letters: Sequence[str]) -> str | None:
    plain = _plain(reply)
    texts = [(letter, text) for letter, option in zip(letters, options, strict=True) if (text := _plain(option))]
    equal = [letter for letter, text in texts if text == plain]
    if len(equal) == 1:
        return equal[0]
    if len(reply) > 2 * sum(map(len, options)):
        return None
    places = {letter: re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", plain) for letter, text in texts}
    inside = [letter for letter, found in places.items() if not all(_denied(plain, *place.span()) for place in found)]
    return inside[0] if len(inside) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".").strip()


def _last_letter(reply: str, letters: Sequence[str]) -> str | None:
    if re.search(_REFUSALS, reply.lower()):
        return None
    words = reply.translate(_MARKS).split()
    last = len(words) - 1
    named = [(i, word) for i, word in enumerate(words) if word in letters and (word != "A" or i == last)]
    return named[0][1] if len(named) == 1 and named[0][0] > last - 4 else None
