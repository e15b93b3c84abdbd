"""A share of a data set: its size, its seed, and that smaller shares are parts of larger ones."""

from fractions import Fraction

import numpy as np
import pytest

from llava.data.share import draw_share, parse_share


@pytest.mark.parametrize(
    ("text", "share"),
    [("25%", Fraction(1, 4)), (" 12.5 %", Fraction(1, 8)), ("100%", Fraction(1)), ("0.1%", Fraction(1, 1000))],
)
def test_shares(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize(
    ("text", "hint"),
    [("25", "'25%'"), ("0.25", "'25%'"), ("1", "'100%'"), ("0%", ""), ("101%", ""), ("", ""), ("a%", ""), ("-5%", "")],
)
def test_what_is_no_share(text, hint):
    with pytest.raises(ValueError, match="--data_share") as caught:
        parse_share(text)
    assert hint in str(caught.value)
    assert ("did you mean" in str(caught.value)) == bool(hint)


def test_smaller_shares_are_parts_of_larger_ones():
    indices = np.setdiff1d(np.arange(1000), [3, 500])
    drawn = {share: draw_share(indices, parse_share(share), 7) for share in ("1%", "10%", "25%", "100%")}
    assert [len(values) for values in drawn.values()] == [10, 100, 250, 998]
    assert set(drawn["1%"]) < set(drawn["10%"]) < set(drawn["25%"]) < set(drawn["100%"])
    assert np.array_equal(drawn["100%"], indices)
    assert np.array_equal(draw_share(indices, parse_share("10%"), 7), drawn["10%"])
    assert set(draw_share(indices, parse_share("10%"), 8)) != set(drawn["10%"])
    # Written down once: a seed means the same samples for ever.
    assert draw_share(np.arange(20), parse_share("25%"), 0).tolist() == [1, 8, 10, 18, 19]
    assert len(draw_share(np.arange(3), parse_share("1%"), 0)) == 1
