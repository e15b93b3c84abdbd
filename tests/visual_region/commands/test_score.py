"""`python -m visual_region score`, `select` and `picture` as users run them, on the tiny model."""

import json
import sys

import pytest
import torch
from matplotlib import pyplot
from safetensors.torch import load_file, save_file

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import digest
from llava.journal import JournalError
from visual_region import __main__ as entry
from visual_region.commands import picture, score, select
from visual_region.importance import inputs
from visual_region.importance import run as run_module
from visual_region.layers import LayerSelection
from visual_region.scores import ScoreError, ScoreFile


def call(module, *arguments):
    parser = entry.make_parser(module.__name__.rpartition(".")[2])
    module.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def flags(tiny, tiny_llava):
    """Flags of a run; keywords override, None leaves a flag out."""

    def make(output, **changes):
        values = {
            "model_path": tiny_llava,
            "data_path": tiny.data,
            "image_folder": tiny.images,
            "samples": 12,
            "batch_size": 5,
            "resamples": 200,
            "output": output,
        } | changes
        return [
            text
            for name, value in values.items()
            if value is not None
            for text in (f"--{name.replace('_', '-')}", value)
        ]

    return make


@pytest.fixture(scope="module")
def scored(tiny, tiny_llava, tmp_path_factory):
    output = tmp_path_factory.mktemp("scores") / "scores.json"
    call(
        score,
        *("--model-path", tiny_llava, "--data-path", tiny.data, "--image-folder", tiny.images, "--samples", "all"),
        *("--batch-size", 5, "--resamples", 200, "--backbone", tiny.llm, "--output", output),
    )
    return output


def test_the_file_says_what_was_measured(scored, tiny, tiny_llava):
    content = json.loads(scored.read_text())
    assert content["model"] == str(tiny_llava)
    assert (content["num_layers"], content["region"]) == (6, [0, 3])
    assert (content["data"]["samples"], content["data"]["with_images"]) == (24, 18)
    assert content["data"]["tokens"]["image"] == 18 * 4
    assert len(content["data"]["sha256"]) == len(content["identity"]) == 64
    assert len(content["samples"]) == 24
    paper = ["bi", "multimodal-bi", "angular", "image-attention", "parameter-change", "angular-param"]
    assert "angular-param-vector" in content["metrics"]
    assert content["data"]["angular_at"] == "last token of the prompt"
    assert [name for name in content["metrics"] if name in paper] == paper
    for name in paper[:4]:
        entry_ = content["metrics"][name]
        assert all(
            low <= value <= high
            for low, value, high in zip(entry_["low"], entry_["values"], entry_["high"], strict=True)
        )
        assert len(entry_["per_sample"]) == 24
        assert entry_["samples"] == (24 if name in ("bi", "angular") else 18)
    # The tiny LLaVA was never trained: its language model is its backbone.
    assert content["metrics"]["parameter-change"]["values"] == [0] * 6
    assert content["metrics"]["parameter-change"]["left_out"] == [0] * 6
    assert not scored.with_name("scores.json.journal").exists()


def test_queries_of_every_kind_add_up(scored):
    scores = ScoreFile.read(scored)
    parts = [scores.scores(f"image-attention-{kind}").values() for kind in ("image", "prompt", "answer")]
    torch.testing.assert_close(sum(parts), scores.scores("image-attention").values())


def test_values_follow_from_the_samples(scored):
    scores = ScoreFile.read(scored)
    for name in ("bi", "multimodal-bi", "angular", "image-attention"):
        recomputed = scores.scores(name).values().tolist()
        assert scores.entry(name)["values"] == pytest.approx(recomputed, abs=1e-12)


def test_the_file_is_read_by_tune_layers(scored):
    values = json.loads(scored.read_text())["metrics"]["angular"]["values"]
    order = sorted(range(6), key=values.__getitem__)
    assert LayerSelection.parse(f"{scored}#angular:lowest:2", 6).layers == tuple(sorted(order[:2]))
    assert LayerSelection.parse(f"{scored}#angular:highest:50%", 6).layers == tuple(sorted(order[3:]))


def test_an_interrupted_run_goes_on_and_ends_the_same(flags, tmp_path, monkeypatch, capsys):
    call(score, *flags(tmp_path / "straight.json"))
    whole = run_module.sweep

    def cut_off(*arguments):
        yield next(iter(whole(*arguments)))
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "sweep", cut_off)
    monkeypatch.setattr(sys, "argv", ["visual_region", "score", *map(str, flags(tmp_path / "cut.json"))])
    with pytest.raises(SystemExit, match="130"):
        entry.main()
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "cut.json").exists()
    with open(tmp_path / "cut.json.journal", "a") as file:
        file.write('["sample 3", {"id"')
    seen = []
    monkeypatch.setattr(run_module, "sweep", lambda *a: (seen.append(b) or (b, n) for b, n in whole(*a)))
    capsys.readouterr()
    call(score, *flags(tmp_path / "cut.json"))
    assert "5 of 12 samples were measured before" in capsys.readouterr().out
    assert sum(len(batch.samples) for batch in seen) == 7
    assert (tmp_path / "cut.json").read_text() == (tmp_path / "straight.json").read_text()


def test_a_finished_run_is_not_measured_again_and_another_is(flags, tiny_llava, tmp_path, monkeypatch, capsys):
    import shutil

    output, model = tmp_path / "s.json", shutil.copytree(tiny_llava, tmp_path / "model")
    call(score, *flags(output, model_path=model))
    before = output.read_text()
    (tmp_path / "s.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "make_reader", None)
        call(score, *flags(output, model_path=model))
    assert "nothing is measured again" in capsys.readouterr().out
    assert output.read_text() == before
    assert (tmp_path / "s.png").is_file()
    assert not (tmp_path / "s.json.journal").exists()
    # Trained again, or on other samples, it is measured again.
    state = load_file(model / "model.safetensors")
    state["model.layers.4.mlp.up_proj.weight"] *= 2
    save_file(state, model / "model.safetensors", {"format": "pt"})
    for changes, differ in (
        ({}, ""),
        ({"samples": 13}, " (samples was '12', now '13')"),
        ({"resamples": 99}, " (samples was '13', now '12', resamples was 200, now 99)"),
    ):
        call(score, *flags(output, model_path=model, **changes))
        said = f"{output} holds scores of another model, data file or settings{differ}; they are replaced"
        assert said in capsys.readouterr().out
        assert output.read_text() != before
        before = output.read_text()


def test_the_dtype_of_the_device_is_a_setting(flags, tmp_path, monkeypatch, capsys):
    """Without --dtype, scores of a GPU and of a CPU are in different dtypes; earlier versions recorded the flag."""
    output, changes = tmp_path / "s.json", {"metrics": "bi", "samples": 4}
    with monkeypatch.context() as patch:
        patch.setattr(score, "dtype_name", lambda args: args.dtype)
        call(score, *flags(output, **changes))
    assert json.loads(output.read_text())["settings"]["dtype"] is None
    call(score, *flags(output, **changes))
    assert "nothing is measured again" in capsys.readouterr().out
    output.unlink()
    call(score, *flags(output, **changes))
    assert json.loads(output.read_text())["settings"]["dtype"] == "fp32"
    monkeypatch.setattr(score, "dtype_name", lambda args: "fp16")
    call(score, *flags(output, **changes))
    assert "(dtype was 'fp32', now 'fp16'); they are replaced" in capsys.readouterr().out


def test_a_file_of_an_earlier_version_is_not_read_as_todays_metrics(scored, tmp_path):
    """`angular-param` was the angle of one vector; `angular` of captions was measured at the last image token."""
    content = json.loads(scored.read_text())
    old = content["metrics"]
    vector = old["angular-param"] = old.pop("angular-param-vector") | {"values": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    (tmp_path / "old.json").write_text(json.dumps(content))
    found = ScoreFile.read(tmp_path / "old.json")
    assert found.entry("angular-param-vector") == vector
    with pytest.raises(
        ValueError, match=r"earlier version wrote has angular-param-vector under that name: score again"
    ):
        LayerSelection.parse(f"{tmp_path}/old.json#angular-param:2", 6)
    assert LayerSelection.parse(f"{tmp_path}/old.json#angular-param-vector:2", 6).layers == (4, 5)
    assert found.entry("angular") == old["angular"], "prompts end with text here"
    del content["data"]["angular_at"]
    content["data"]["captions"] = True
    (tmp_path / "old.json").write_text(json.dumps(content))
    found = ScoreFile.read(tmp_path / "old.json")
    assert found.entry("angular") == old["angular-last"] != old["angular"]
    assert found.entry("angular-image") == old["angular"], "for those who ask for it"


@pytest.mark.parametrize(("metric", "template"), [("angular-param", "plain"), ("angular", "plain"), ("bi", "llava_v0")])
def test_what_an_earlier_version_measured_is_measured_again(
    metric, template, flags, tiny, tmp_path, monkeypatch, capsys
):
    data = {"data_path": tiny.captions if template == "plain" else tiny.data}
    if metric == "angular-param":
        data = {"data_path": None, "backbone": tiny.llm}
    output, changes = tmp_path / "s.json", {"metrics": metric, "samples": "all", **data, "conv_mode": template}
    with monkeypatch.context() as patch:
        patch.setattr(score, "_definitions", lambda settings: {})
        call(score, *flags(output, **changes))
    for again in (False, True):
        capsys.readouterr()
        call(score, *flags(output, **changes))
        assert ("nothing is measured again" in capsys.readouterr().out) == again


@pytest.mark.parametrize("form", ["pairs", "llava"])
def test_the_angle_of_captions_is_that_of_their_last_token(form, flags, tiny, tmp_path, capsys):
    pairs = [{"image": f"{i}.png", "caption": f"a red line {i}"} for i in range(8)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    data = {
        "pairs": {"data_path": tmp_path / "pairs.json"},
        "llava": {"data_path": tiny.captions, "conv_mode": "plain"},
    }
    call(score, *flags(tmp_path / "s.json", metrics="angular", samples="all", **data[form]))
    assert (
        "angular: at the last token of the sample, because a caption's prompt is the image" in capsys.readouterr().out
    )
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["data"]["angular_at"] == "last token of the sample"
    assert found["settings"]["template"] == "plain"
    assert found["metrics"]["angular"]["values"] == found["metrics"]["angular-last"]["values"]


def test_a_journal_of_another_run_is_refused(flags, tmp_path, monkeypatch):
    (tmp_path / "s.json.journal").write_text('{"settings": "other"}\n')
    monkeypatch.setattr(inputs, "make_reader", None)
    with pytest.raises(JournalError, match="begun with another model"):
        call(score, *flags(tmp_path / "s.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": "bi,bee"}, "there is no metric 'bee'; there are bi, multimodal-bi"),
        ({"metrics": "angular-param"}, "angular-param needs --backbone"),
        ({"metrics": "bi", "data_path": None}, "bi needs --data-path"),
        ({"data_path": None}, "give --data-path, .* or --backbone"),
        ({"samples": "0"}, "--samples is a whole number from 1 on, or 'all'"),
        ({"image_folder": "/nowhere"}, r"\d of \d images are missing"),
        ({"model_path": "/nowhere"}, "checkpoint /nowhere does not exist"),
        ({"data_path": "/nowhere.json"}, "/nowhere.json does not exist"),
        ({"mark": "0-9"}, "there is no layer 9"),
        ({"conv_mode": "foo"}, "unknown conversation template 'foo'"),
        ({"data_path": "/tmp"}, "data file /tmp is a folder; give the JSON file itself"),
        ({"batch_size": 0}, "--batch-size is a whole number from 1 on, not 0"),
        ({"resamples": 0}, "--resamples is a whole number from 1 on, not 0"),
    ],
)
def test_bad_input_is_told_before_weights_are_loaded(flags, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(inputs, "make_reader", None)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call(score, *flags(tmp_path / "s.json", **changes))
    assert list(tmp_path.iterdir()) == []


def test_images_for_a_plain_language_model(tiny, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "make_reader", None)
    with pytest.raises(ValueError, match=r"has no vision tower, but \d+ samples have images"):
        call(score, *flags(tmp_path / "s.json", model_path=tiny.llm, metrics="bi"))


def test_the_angle_of_the_first_llavas_template(flags, tiny, tmp_path):
    """Its training labels begin in the human's header: the angle there would be the same in every sample."""
    call(score, *flags(tmp_path / "s.json", metrics="angular", conv_mode="llava_v0", samples="all"))
    rows = json.loads((tmp_path / "s.json").read_text())["metrics"]["angular"]["per_sample"]
    assert max(max(layer) - min(layer) for layer in zip(*rows, strict=True)) > 1e-4


def test_data_without_images(tiny, flags, tmp_path, monkeypatch):
    texts = [item for item in json.loads(tiny.data.read_text()) if "image" not in item]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    output = tmp_path / "out/s.json"
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "make_reader", None)
        with pytest.raises(ScoreError, match=r"multimodal-bi, image-attention need images.*--metrics bi,angular"):
            call(score, *flags(output, data_path=tmp_path / "texts.json"))
    assert not output.parent.exists()
    call(score, *flags(output, data_path=tmp_path / "texts.json", metrics="bi,angular", samples="all"))
    assert set(ScoreFile.read(output).names) == {"bi", "angular", "bi-prompt", "bi-answer", "bi-text", "angular-last"}


def test_a_backbone_of_another_shape(flags, tiny, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(tiny.llm, tmp_path / "other")
    state = load_file(tiny.llm / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 32)
    save_file(state, tmp_path / "other/model.safetensors", {"format": "pt"})
    monkeypatch.setattr(inputs, "make_reader", None)
    with pytest.raises(ScoreError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is \(64, 32\)"):
        call(score, *flags(tmp_path / "s.json", backbone=tmp_path / "other"))
    assert not (tmp_path / "s.json").exists()


def test_scores_of_another_model_are_told(scored, tiny_llava, tiny, tmp_path):
    import shutil

    ScoreFile.read(scored).check_fits("other", digest(open_checkpoint(tiny_llava)))
    shutil.copytree(tiny_llava, tmp_path / "other")
    state = load_file(tiny_llava / "model.safetensors")
    state["model.norm.weight"] = state["model.norm.weight"] + 1
    save_file(state, tmp_path / "other/model.safetensors", {"format": "pt"})
    with pytest.raises(ScoreError, match=r"holds the scores of another model .* than \S+; score this one"):
        ScoreFile.read(scored).check_fits("other", digest(open_checkpoint(tmp_path / "other")))
    older = {name: value for name, value in json.loads(scored.read_text()).items() if name != "run"}
    (tmp_path / "old.json").write_text(json.dumps(older | {"identity": "0" * 64}))
    with pytest.raises(ScoreError, match="or was written before every tensor counted for a model"):
        ScoreFile.read(tmp_path / "old.json").check_fits("other", digest(open_checkpoint(tiny_llava)))


def test_a_file_that_is_no_score_file(tmp_path):
    (tmp_path / "s.json").write_text('{"num_layers": 3, "metrics": {"bi": {"values": [1, 2]}}}')
    with pytest.raises(ScoreError, match="3 layers, but another number of values in bi"):
        ScoreFile.read(tmp_path / "s.json")
    (tmp_path / "s.json").write_text("[]")
    with pytest.raises(ScoreError, match="is not a score file"):
        ScoreFile.read(tmp_path / "s.json")


def test_selections_their_overlap_and_their_stability(scored, tmp_path, capsys):
    specs = (f"{scored}#bi:2", f"{scored}#angular:lowest:50%", "sparse-uniform:2")
    call(select, *specs, "--stability", "--output", tmp_path / "s.json", "--picture", tmp_path / "s.png")
    text = capsys.readouterr().out
    content = json.loads((tmp_path / "s.json").read_text())
    for spec, row in zip(specs, content["selections"], strict=True):
        layers = LayerSelection.parse(spec, 6)
        assert row["layers"] == list(layers)
        assert f"--tune_layers {layers.as_list_spec()}\n" in text
        assert layers.picture() in text
    sets = [set(row["layers"]) for row in content["selections"]]
    assert content["jaccard"] == [[len(a & b) / len(a | b) for b in sets] for a in sets]
    first, _, last = (row["stability"] for row in content["selections"])
    assert sum(first["share"]) == pytest.approx(2)
    assert first["low"] <= first["jaccard"] <= first["high"]
    assert last is None
    assert first["of"] == "samples"
    assert "stability over samples: overlap with resamples" in text
    assert "It does not cover another training of the model" in text
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_spread_and_random_layers_are_printed_and_drawn(scored, tmp_path, capsys, monkeypatch):
    """The resamples choose in the order of the selection; layers of a seed have no resamples."""
    figures, specs = [], (f"{scored}#bi:spread:3", "random:2@0")
    with monkeypatch.context() as patch:
        # Kept open, to be looked into.
        patch.setattr(pyplot, "close", figures.append)
        call(select, *specs, "--stability", "--output", tmp_path / "s.json", "--picture", tmp_path / "s.png")
    (axis,) = figures[0].axes
    labels = [label.get_text() for label in axis.get_yticklabels()]
    # The rows of the picture whose cells hold shares of resamples.
    rows = {text.get_position()[1] for text in axis.texts}
    pyplot.close("all")
    assert (labels, rows) == ([f"{scored.name}#bi:spread:3", "random:2@0"], {0.5})
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    said, content = capsys.readouterr().out, json.loads((tmp_path / "s.json").read_text())
    for spec, row in zip(specs, content["selections"], strict=True):
        layers = LayerSelection.parse(spec, 6)
        assert row["layers"] == list(layers)
        assert f"--tune_layers {layers.as_list_spec()}\n" in said
        assert layers.picture() in said
    stable, none = (row["stability"] for row in content["selections"])
    assert [sum(stable["share"][start : start + 2]) for start in (0, 2, 4)] == pytest.approx([1, 1, 1])
    assert none is None
    assert said.count("stability over samples: overlap with resamples") == 1
    assert said.count("stability: none, because") == 1


def test_selecting_needs_a_depth():
    with pytest.raises(ValueError, match="give --num-layers or --model-path"):
        call(select, "sparse-uniform:2")


def test_a_table_of_selections(scored, tmp_path, capsys):
    """Metrics of parameters have neither interval nor stability, and say so."""
    specs = (f"{scored}#parameter-change:2", f"{scored}#bi:2", "sparse-uniform:2")
    call(select, *specs, "--stability", "--markdown", tmp_path / "t.md")
    assert "stability: none, because the selection does not come from several samples" in capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "t.md").read_text().splitlines()]
    bi = json.loads(scored.read_text())["metrics"]["bi"]
    layers = LayerSelection.parse(specs[1], 6).layers
    assert rows[0][-1] == "overlap with sparse-uniform:2"
    assert rows[2][:3] == ["parameter-change:2", "0, 1", "0, 0"]
    assert rows[3][:2] == ["bi:2", ", ".join(map(str, layers))]
    assert rows[3][2].startswith(f"{bi['values'][layers[0]]:.3g} [{bi['low'][layers[0]]:.3g}, ")
    assert rows[4][-1] == "1.00"


def test_score_files_of_one_name_stay_apart(scored, tmp_path):
    specs = []
    for folder in ("a/run", "b/run"):
        file = tmp_path / folder / "scores.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(scored.read_bytes())
        specs.append(f"{file}#angular:2")
    call(select, *specs, "--markdown", tmp_path / "t.md", "--picture", tmp_path / "t.png")
    rows = [line.strip("| ").split(" | ")[0] for line in (tmp_path / "t.md").read_text().splitlines()]
    assert rows[2:] == ["a/run/scores.json#angular:2", "b/run/scores.json#angular:2"]


@pytest.mark.parametrize("resamples", [0, -1])
def test_selecting_with_no_resamples(scored, resamples):
    with pytest.raises(ValueError, match=f"--resamples is a whole number from 1 on, not {resamples}"):
        call(select, f"{scored}#bi:2", "--stability", "--resamples", resamples)


def test_one_sample_is_no_certainty(flags, tmp_path, capsys):
    output = tmp_path / "one.json"
    call(score, *flags(output, samples=1, metrics="bi,angular"))
    assert "±" not in capsys.readouterr().out
    entry_ = json.loads(output.read_text())["metrics"]["angular"]
    assert entry_["samples"] == 1
    assert not {"low", "high", "confidence"} & entry_.keys()
    call(select, f"{output}#angular:2", "--stability", "--markdown", tmp_path / "t.md")
    assert "stability: none, because the selection does not come from several samples" in capsys.readouterr().out


def test_pictures(scored, tmp_path):
    for suffix in (".png", ".heatmap.png"):
        assert scored.with_suffix(suffix).read_bytes().startswith(b"\x89PNG")
    curve = [
        {"removed": n, "protected": p, "accuracy": 0.9 - 0.1 * n}
        for n, p in ((0, True), (1, True), (1, False), (2, True))
    ]
    (tmp_path / "curve.json").write_text(json.dumps(curve))
    call(picture, "bars", scored, "--metric", "bi,angular-last", "--mark", "0,1", "--output", tmp_path / "bars.png")
    call(picture, "heatmap", scored, scored, "--names", "a,b", "--output", tmp_path / "heat.png")
    call(picture, "curves", tmp_path / "curve.json", "--output", tmp_path / "curves.png")
    for name in ("bars", "heat", "curves"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ScoreError, match="is not a curve"):
        call(picture, "curves", scored, "--output", tmp_path / "no.png")
    with pytest.raises(ScoreError, match="has no values per sample"):
        call(picture, "heatmap", scored, "--metric", "parameter-change", "--output", tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_errors_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["visual_region", "score", "--model-path", str(tmp_path), "--output", "s.json"])
    with pytest.raises(SystemExit, match="error: give --data-path"):
        entry.main()
