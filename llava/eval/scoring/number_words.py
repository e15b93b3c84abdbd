"""Whole numbers written as English words: "thirteen", "twenty-one", "two hundred and five", "minus four"."""

import re

_BELOW_TWENTY = (
    "zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SIZES = {word: value for value, word in enumerate(_BELOW_TWENTY.split())}
_SIZES |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_NUMBER = "|".join(sorted([*_SIZES, "hundred", *_SCALES], key=len, reverse=True))
_JOIN = r"(?:\s*-\s*|\s+and\s+|\s+)"
_RUN = re.compile(rf"(?:\b(minus|negative)\s+)?\b((?:{_NUMBER})(?:{_JOIN}(?:{_NUMBER}))*)\b", re.IGNORECASE)


def numbers_in_words(text: str) -> list[int]:
    """The numbers written out in a text, in order; a run such as "one two" is read as two numbers."""
    found = []
    for sign, run in _RUN.findall(text):
        values = _read(re.findall(_NUMBER, run.lower()))
        found += [-values[0] if sign else values[0], *values[1:]]
    return found


def _read(words: list[str]) -> list[int]:
    """The values of consecutive number words; a word that cannot continue a number begins the next one."""
    values: list[int] = []
    total, group, room = 0, 0, 0
    # `room`: below which size the next word may add to the group; 0 before the first word.
    for word in words:
        size = _SIZES.get(word)
        fits = 0 < group < 100 if word == "hundred" else size is None or 0 < size < room
        if room and not fits:
            values.append(total + group)
            total, group = 0, 0
        if size is not None:
            group, room = group + size, 10 if size >= 20 else 1
        elif word == "hundred":
            group, room = max(group, 1) * 100, 100
        else:
            total, group, room = total + max(group, 1) * _SCALES[word], 0, 1000
    return [*values, total + group]
