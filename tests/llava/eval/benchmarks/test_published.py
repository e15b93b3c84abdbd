import pytest

from llava.eval.benchmarks import bbh, mmlu
from llava.eval.benchmarks.published import TABLE, not_as_published, text_not_as_published, words_and_line_ends


@pytest.mark.parametrize("name", [name for name in TABLE if not TABLE[name].least])
def test_any_other_count_is_said(name):
    count = TABLE[name].count
    assert not not_as_published(name, count)
    for found in (6, count - 1, count + 1):
        (warning,) = not_as_published(name, found)
        assert f"hold {found:,} {TABLE[name].what}, published are {count:,}" in warning


def test_versions_of_mmbench_differ():
    assert not not_as_published("mmbench", 4329)
    assert not not_as_published("mmbench", 4377)
    assert "hold 12 rows, published are at least 4,329" in not_as_published("mmbench", 12)[0]


def test_parts_add_up():
    assert sum(task.questions for task in bbh.TASKS.values()) == TABLE["bbh"].count == 6511
    assert TABLE["mmlu"].count == mmlu.QUESTIONS == 14042


def test_a_text_cut_short_is_recognised_by_its_first_heading():
    text = " \n = Homarus gammarus = \n \n Homarus gammarus , known as the lobster . \n"
    assert words_and_line_ends(text) == 16
    (warning,) = text_not_as_published(text)
    assert "begins as wikitext-2-valid and holds 16 words and line ends, published are 217,646" in warning
    whole = text + "x " * (217646 - 16)
    assert not text_not_as_published(whole)
    assert not text_not_as_published("Any other text.\n")
    assert not text_not_as_published("")
