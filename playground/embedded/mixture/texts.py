"""Text without a picture, as LLaVA's mix has ShareGPT: made from templates, as no instruction data is in the wheels."""

import random
from collections.abc import Callable

from playground.embedded.mixture.words import WORDS

CAPITALS = {
    **{
        "France": "Paris",
        "Italy": "Rome",
        "Spain": "Madrid",
        "Germany": "Berlin",
        "Japan": "Tokyo",
        "China": "Beijing",
    },
    **{"Egypt": "Cairo", "Greece": "Athens", "Norway": "Oslo", "Peru": "Lima", "Cuba": "Havana", "Canada": "Ottawa"},
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OPPOSITES = {"hot": "cold", "big": "small", "up": "down", "day": "night", "old": "new", "open": "closed", "wet": "dry"}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _sum(rng: random.Random) -> tuple[str, str]:
    first, second = rng.randint(1, 20), rng.randint(1, 20)
    return f"What is {first} plus {second}?", str(first + second)


def _larger(rng: random.Random) -> tuple[str, str]:
    first, second = rng.sample(range(1, 100), 2)
    return f"Is {first} larger than {second}?", "yes" if first > second else "no"


def _sort(rng: random.Random) -> tuple[str, str]:
    chosen = rng.sample(WORDS, 3)
    return f"Sort these words: {' '.join(chosen)}", " ".join(sorted(chosen))


def _copy(rng: random.Random) -> tuple[str, str]:
    chosen = " ".join(rng.sample(WORDS, 4))
    return f"Repeat: {chosen}", chosen


def _spell(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(WORDS)
    return f"Spell the word {word}.", " ".join(word)


def _capital(rng: random.Random) -> tuple[str, str]:
    country = rng.choice(list(CAPITALS))
    return f"What is the capital of {country}?", CAPITALS[country]


def _next_day(rng: random.Random) -> tuple[str, str]:
    day = rng.randrange(len(DAYS))
    return f"Which day comes after {DAYS[day]}?", DAYS[(day + 1) % len(DAYS)]


def _opposite(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(list(OPPOSITES))
    return f"What is the opposite of {word}?", OPPOSITES[word]


def _number(rng: random.Random) -> tuple[str, str]:
    digit = rng.randrange(len(NUMBERS))
    return f"Write the number {digit} as a word.", NUMBERS[digit]


TEMPLATES: tuple[Callable[[random.Random], tuple[str, str]], ...] = (
    *(_sum, _larger, _sort, _copy, _spell),
    *(_capital, _next_day, _opposite, _number),
)
TURNS = 3
"""Questions of a conversation."""


def conversation(rng: random.Random) -> list[tuple[str, str]]:
    """Questions of different kinds with their answers."""
    return [template(rng) for template in rng.sample(TEMPLATES, TURNS)]
