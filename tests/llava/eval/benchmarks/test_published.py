import pytest

from llava.eval.benchmarks import BENCHMARKS, BY_NAME
from llava.eval.benchmarks.perplexity import PUBLISHED as TEXTS
from llava.eval.benchmarks.perplexity import text_not_as_published, words_and_line_ends
from llava.eval.scoring.bbh_forms import TASKS

TABLE = {benchmark.name: benchmark.published for benchmark in BENCHMARKS if benchmark.published} | TEXTS


@pytest.mark.parametrize("name", [name for name in TABLE if not TABLE[name].least])
def test_any_other_count_is_said(name):
    count = TABLE[name].count
    assert not TABLE[name].warning(count)
    for found in (6, count - 1, count + 1):
        (warning,) = TABLE[name].warning(found)
        assert f"hold {found:,} {TABLE[name].what}, published are {count:,}" in warning


def test_versions_of_mmbench_differ():
    assert not BY_NAME["mmbench"].published.warning(4329)
    assert not BY_NAME["mmbench"].published.warning(4377)
    assert "hold 12 rows, published are at least 4,329" in BY_NAME["mmbench"].published.warning(12)[0]


def test_parts_add_up():
    assert sum(task.questions for task in TASKS.values()) == TABLE["bbh"].count == 6511
    assert TABLE["mmlu"].count == 14042


def test_a_text_cut_short_is_recognised_by_its_first_heading():
    text = " \n = Homarus gammarus = \n \n Homarus gammarus , known as the lobster . \n"
    assert words_and_line_ends(text) == 16
    (warning,) = text_not_as_published(text)
    assert "begins as wikitext-2-valid and holds 16 words and line ends, published are 217,646" in warning
    whole = text + "x " * (217646 - 16)
    assert not text_not_as_published(whole)
    assert not text_not_as_published("Any other text.\n")
    assert not text_not_as_published("")
