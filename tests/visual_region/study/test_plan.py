"""Plans of studies: every error at once, with the path of its key."""

import re

import pytest

from tests.conftest import REPOSITORY
from visual_region.study.cells import cells_of
from visual_region.study.plan import Plan
from visual_region.study.plan_file import read_plan
from visual_region.study.yaml_file import PlanError


def test_a_plan_is_read(small_study):
    plan = read_plan(small_study.file)
    assert (plan.name, str(plan.out), plan.layers, plan.keep_weights) == ("small", "out", 6, True)
    assert plan.stages["first"].words == ("bash", "scripts/stage.sh", "--a", "b")
    assert plan.train.words == ("scripts/train.sh",)
    assert plan.train.environment == {"STEPS": "2"}
    assert plan.train.flags == ("--lora_dropout", "0")
    assert plan.rows == {"all": "all", "top": "top:2", "bi": "{scores}#bi:2", "backbone": None}
    assert plan.experiments["selections"].seeds == (0, 1)
    assert plan.experiments["selections"].shares == (100,)
    assert plan.experiments["shares"].shares == (100, 25)
    assert plan.evaluate.columns == ("gqa",)
    assert plan.attention == {"docvqa": ("--samples", "8")}
    assert plan.reference == "all"


def test_values_of_the_command_line_replace_those_of_the_file(small_study):
    changes = ["seeds=[3]", "train.environment.STEPS=10", "train.environment.NEW=", "cost.device=mine", "name=x=y"]
    plan = read_plan(small_study.file, [*changes, "cost.flags=--tflops 1"], "elsewhere")
    assert plan.experiments["text"].seeds == (0,)
    assert plan.experiments["selections"].seeds == (3,)
    assert plan.train.environment == {"STEPS": "10", "NEW": ""}
    assert (plan.name, str(plan.out), plan.cost.device) == ("x=y", "elsewhere", "mine")
    with pytest.raises(PlanError, match="--set seeds: write KEY=VALUE"):
        read_plan(small_study.file, ["seeds"])
    with pytest.raises(PlanError, match=r"--set model.x=1: model is no mapping in the plan, but 'llm'"):
        read_plan(small_study.file, ["model.x=1"])
    with pytest.raises(PlanError, match=r"- evaluate.colums: there is no key 'colums'; did you mean 'columns'\?"):
        read_plan(small_study.file, ["evaluate.colums=[gqa]"])


def test_the_folder_of_the_command_line_is_taken_as_it_is_typed(small_study):
    """YAML reads these as a number and as true."""
    for out in ("2026_11_22", "010", "yes"):
        plan = read_plan(small_study.file, ["out=other"], out)
        assert (str(plan.out), plan.values["out"]) == (out, out)
    with pytest.raises(PlanError, match="out: text is needed, not ''"):
        read_plan(small_study.file, out="")


def test_a_key_is_its_text_and_mappings_are_merged(small_study):
    small_study.change("  top: top:2\n", "  8: top:2\n")
    small_study.change("[all, top, bi]", "[all, 8, bi]")
    small_study.change("rows: [top]", "rows: [8]")
    small_study.change("environment: {STEPS: 2}", "environment: {<<: {STEPS: 2, ON: 1}, STEPS: 3}")
    plan = read_plan(small_study.file)
    assert list(plan.rows) == ["all", "8", "bi", "backbone"]
    assert plan.experiments["selections"].rows == ("all", "8", "bi")
    assert plan.train.environment == {"STEPS": "3", "ON": "1"}


WRONG = """
nam: x
model: llm
layers: 6
seeds: 3
keep_weights: perhaps
environment: {MODEL: a, OUTPUT: b, PLACE: "{stage}/x"}
stages:
  first: {comand: bash scripts/none.sh}
  second: {command: bash scripts/none.sh}
  third/part: {command: echo}
  fourth: {command: }
train: {script: scripts/trian.sh, flags: --seed 3}
rows:
  all: all
  every: 0-5
  much: top:9
  bi: "{scores}#bi:2"
  odd: "{sead}"
  metric: "{scores}#by:2"
  order: "{scores}#bi:speard:2"
  none: null
experiments:
  selection: {rows: [all]}
  selections: {rows: [al, none], shares: [0, 120]}
  depths: {rows: [all, all]}
  curve: {rows: [all]}
evaluate:
  columns: [gqa, vqa, bbh/task]
  questions: {gca: x}
  flags: --batch-sizes 3
score: --sample 3 --output x
reversion: --samples three
attention: {docvqa: --data-pat x}
cost: {device: a, flags: --samples 3}
"""
EXPECTED = """
nam: there is no key 'nam'; did you mean 'name'?
seeds: a list is needed, such as [a, b], not 3
keep_weights: true or false is needed, not 'perhaps'
environment.MODEL: the plan has the key 'model' for it
environment.OUTPUT: the study gives each cell its own
environment.PLACE: there is no placeholder '{stage}'; did you mean '{stages}'?
stages.first.command: is missing
stages.first.comand: there is no key 'comand'; did you mean 'command'?
stages.second.command: there is no scripts/none.sh in
stages.fourth.command: a command is needed, such as bash scripts/train/pretrain.sh, not None
stages.third/part: files are named after it, so it cannot hold a /
train.script: there is no scripts/trian.sh in
train.flags: --seed is given by the study: it has the keys seeds and shares
rows.every: tunes what 'all' tunes; one row can be in several experiments
rows.much: layer selection 'top:9': layers are 0..5 of a 6-layer model
rows.odd: there is no placeholder '{sead}'; did you mean '{seed}'?
rows.metric: there is no metric 'by'; there are bi, multimodal-bi,
rows.order: a score file is used as FILE#METRIC:COUNT or FILE#METRIC:ORDER:COUNT
experiments.selection: there is no experiment 'selection'; did you mean 'selections'?
experiments.selections.rows: there is no row 'al'; did you mean 'all'?
experiments.selections.rows: 'none' is the model before training, which has a place in the experiment 'text' only
experiments.selections.shares: a number above 0 is needed, not 0
experiments.depths.rows: all is there twice
curve: is missing; the experiment 'curve' needs it
scores_of: is missing; which row's scores the row 'bi' uses
evaluate.columns: there is no benchmark 'vqa'; did you mean
evaluate.columns: bbh/task is a benchmark of text; its place is evaluate.text_columns
evaluate.questions.gca: there is no benchmark 'gca'; did you mean 'gqa'?
evaluate.flags: --batch-sizes is no flag of gqa, bbh; did you mean --batch-size?
score: --output is given by the study
score: --sample is no flag of the command score; did you mean --samples?
reversion: argument --samples: invalid int value: 'three' (the command perplexity)
attention.docvqa: --data-pat is no flag of the command score; did you mean --data-path?
cost.flags: --tflops is missing
"""


def test_every_error_is_reported_at_once(small_study):
    small_study.file.write_text(WRONG)
    with pytest.raises(PlanError) as stop:
        read_plan(small_study.file)
    lines = [line.removeprefix("- ") for line in str(stop.value).splitlines()]
    missing = [wanted for wanted in EXPECTED.strip().splitlines() if not any(one.startswith(wanted) for one in lines)]
    assert not missing, str(stop.value)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("bash scripts/train.sh", "train.script: the study starts it with bash itself; leave out the word bash"),
        ("", "train.script: a script is needed, such as scripts/train/finetune_lora.sh, not None"),
    ],
)
def test_the_script_of_the_training_is_no_command(small_study, script, why):
    small_study.change("script: scripts/train.sh", f"script: {script}")
    with pytest.raises(PlanError) as stop:
        read_plan(small_study.file)
    assert str(stop.value).splitlines()[1:] == [f"- {why}"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rows: [a", r"plan \S+, line 1, column 9 is not valid YAML"),
        ("rows: {a: all, a: top}", r"line 1, column 16 is not valid YAML: the key 'a' is there twice"),
        ("rows: {[a]: all}", r"line 1, column 8 is not valid YAML: a key is a text"),
        ("- a", "is no mapping of keys to values"),
        ("", "is no mapping of keys to values"),
        ("rows: [all]", "rows: a mapping of keys to values is needed, not"),
        ("rows: {}", "rows: is missing"),
    ],
)
def test_what_is_no_plan(small_study, text, why):
    small_study.file.write_text(text)
    with pytest.raises(PlanError, match=why):
        read_plan(small_study.file)
    with pytest.raises(PlanError, match="does not exist"):
        read_plan("nothing.yaml")


def test_numbers_with_colons_are_texts(small_study):
    """YAML 1.1 reads 2:5 to the base of 60."""
    small_study.change("top: top:2", "top: 2:5")
    small_study.change("STEPS: 2", "STEPS: 2, TIME: 1:30, LR: 1.5")
    plan = read_plan(small_study.file)
    assert plan.rows["top"] == "2:5"
    assert plan.train.environment == {"STEPS": "2", "TIME": "1:30", "LR": "1.5"}


def test_the_depth_is_that_of_the_local_model(small_study, tiny):
    """Without `layers` it is read from config.json."""
    small_study.change("layers: 6\n", "")
    small_study.change("top: top:2", "top: 6")
    assert read_plan(small_study.file, ["model=hub/name"]).layers is None
    with pytest.raises(PlanError, match=r"rows\.top: layer selection '6': layers are 0\.\.5 of a 6-layer model"):
        read_plan(small_study.file, [f"model={tiny.llm}"])


@pytest.mark.parametrize("name", sorted(path.name for path in (REPOSITORY / "plans").glob("*.yaml")))
def test_the_plans_of_the_repository(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    plan = read_plan(f"plans/{name}")
    assert f"{plan.name}.yaml" == name
    assert plan.reference
    assert cells_of(plan)


def test_the_page_has_every_key(small_study):
    page = (REPOSITORY / "docs/studies.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", page, re.S)[1]
    small_study.file.write_text(example)
    for script in ("pretrain", "finetune_lora"):
        (small_study.root / f"scripts/train/{script}.sh").parent.mkdir(exist_ok=True)
        (small_study.root / f"scripts/train/{script}.sh").touch()
    plan = read_plan(small_study.file)
    keys = set(Plan.__dataclass_fields__) - {"file", "values"}
    # Defaults of the experiments.
    assert set(plan.values) == keys | {"seeds", "shares"}
    assert all(getattr(plan, key) for key in keys)
