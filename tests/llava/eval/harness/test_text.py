"""Our checkpoints in lm-eval: its real tasks on local files, against our own scorers and against lm-eval's `hf`.

The task files below include lm-eval's own and only name other data, so that nothing comes from a hub.
"""

import contextlib
import io
import json
import os
import socket
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from llava.chat_template import chat_template
from llava.checkpoint.folder import open_checkpoint
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.arguments import open_model
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.flags import mmlu_parser
from llava.eval.answering.loglikelihood import encode_pair
from llava.eval.answering.mmlu import answer as answer_mmlu
from llava.eval.answering.perplexity import Corpus
from llava.eval.answering.questions import Question
from llava.eval.benchmarks.bbh import prompt as bbh_prompt
from llava.eval.benchmarks.bbh import score as score_bbh
from llava.eval.benchmarks.mmlu import LETTERS
from llava.eval.benchmarks.mmlu import prepare as prepare_mmlu
from llava.eval.benchmarks.mmlu import score as score_mmlu
from llava.eval.benchmarks.perplexity import detokenised
from llava.eval.benchmarks.preparing import Options
from llava.eval.scoring.bbh_forms import flexible_match, strict_match
from llava.model.builder import load_checkpoint
from llava.tokenization import ids_to_text

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: pip install -c constraints.txt -e '.[harness]'")

from llava.eval.harness.text import LlavaVR  # noqa: E402

TASKS = Path(lm_eval.__file__).parent / "tasks"
SUBJECTS = ("anatomy", "astronomy")
PAGES = [
    " = First page = \n \n The cat 's mat ( a red one ) is @-@ like 1 @,@ 000 others , 3 @.@ 5 . Is it ? Yes ! \n",
    " = Second = \n \n" + " Where is the red line ? At the top left ." * 30 + "\n",
    "x",
]
BBH = {
    "boolean_expressions": ("not ( True ) and ( True ) is", "False"),
    "date_understanding": ("What is the date?\nOptions:\n(A) 05/01/2021\n(B) 02/23/2021", "(B)"),
    "object_counting": ("I have a chair and two lines. How many objects do I have?", "3"),
    "word_sorting": ("Sort the following words alphabetically: List: red line at", "at line red"),
}


@pytest.fixture(scope="module", autouse=True)
def _own_datasets_cache(tmp_path_factory):
    """`datasets` keeps what it reads out of the user's cache."""
    import datasets.config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Task files of MMLU, BIG-bench-hard and WikiText, and the same questions as our own benchmarks read them."""
    root = tmp_path_factory.mktemp("data")
    for split in ("dev", "test"):
        (root / "mmlu" / split).mkdir(parents=True)
    for subject in SUBJECTS:
        for split, number in (("dev", 5), ("test", 6)):
            questions = [f"{'ab cd' * (i % 4 + 1)} {split} {i}?" for i in range(number)]
            rows = [(text, f"{i}", "no", "red", "left", LETTERS[i % 4]) for i, text in enumerate(questions)]
            text = "".join(",".join(row) + "\n" for row in rows)
            (root / "mmlu" / split / f"{subject}_{split}.csv").write_text(text)
            docs = [{"question": q, "choices": list(c), "answer": LETTERS.index(a)} for q, *c, a in rows]
            lines(root / f"{subject}_{split}.jsonl", docs)
        write_task(
            root,
            f"local_mmlu_{subject}",
            TASKS / f"mmlu/default/mmlu_{subject}.yaml",
            {split: root / f"{subject}_{split}.jsonl" for split in ("dev", "test")},
        )
    prepare_mmlu(root / "mmlu", root / "mmlu/out", Options(check_counts=False))
    for task, (question, target) in BBH.items():
        lines(root / f"{task}.jsonl", [{"input": f"{i}: {question}", "target": target} for i in range(5)])
        source, files = TASKS / f"bbh/zeroshot/{task}.yaml", {"test": root / f"{task}.jsonl"}
        write_task(root, f"local_{task}", source, files)
        ours = {"description": "", "doc_to_text": bbh_prompt("{{input}}")}
        ours["generation_kwargs"] = {"until": [], "max_gen_toks": 12}
        write_task(root, f"ours_{task}", source, files, ours)
    lines(root / "pages.jsonl", [{"page": page} for page in PAGES])
    write_task(root, "local_wikitext", TASKS / "wikitext/wikitext.yaml", {"test": root / "pages.jsonl"})
    texts = [{"text": detokenised(page), "original": page} for page in PAGES]
    lines(root / "wikitext.jsonl", texts)
    return root


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_task(root, name, source, files, changes=()):
    """A task file with lm-eval's own rules and local data."""
    written = {"include": str(source), "task": name, "tag": "local", "dataset_path": "json", "dataset_name": None}
    written |= {"training_split": None, "validation_split": None} if "train" not in files else {}
    written["dataset_kwargs"] = {"data_files": {split: str(path) for split, path in files.items()}}
    # JSON is YAML.
    (root / f"{name}.yaml").write_text(json.dumps(written | dict(changes)))


def evaluate(model, data, tasks, **options):
    """lm-eval's results and, by task, its samples in order."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(data), include_defaults=False)
    arguments = {"bootstrap_iters": 0, "task_manager": manager} | options
    with contextlib.redirect_stderr(io.StringIO()):
        found = lm_eval.simple_evaluate(model=model, tasks=list(tasks), **arguments)
    samples = {task: sorted(rows, key=lambda row: row["doc_id"]) for task, rows in found["samples"].items()}
    return found["results"], samples


def ours(checkpoint, **arguments):
    return LlavaVR(str(checkpoint), device="cpu", dtype="float32", **{"batch_size": 4} | arguments)


@pytest.fixture(scope="module")
def model(tiny_llava):
    return ours(tiny_llava, conv_mode="v1")


def test_mmlu_by_loglikelihood(tiny_llava, model, data, tmp_path):
    """Question by question the same letter as `model_mmlu --method loglikelihood`, and the same accuracy."""
    results, samples = evaluate(model, data, [f"local_mmlu_{s}" for s in SUBJECTS], num_fewshot=5)
    flags = {"model-path": tiny_llava, "question-file": data / "mmlu/out/questions.jsonl", "device": "cpu"}
    flags |= {"shots-file": data / "mmlu/out/shots.json", "answers-file": tmp_path / "a.jsonl", "dtype": "fp32"}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    args = mmlu_parser().parse_args([*words, "--method", "loglikelihood", "--batch-size", "3"])
    answer_mmlu(args, open_model(args))
    answers = read(tmp_path / "a.jsonl")
    theirs = [row for subject in SUBJECTS for row in samples[f"local_mmlu_{subject}"]]
    assert len(answers) == len(theirs) == 12
    for line, row in zip(answers, theirs, strict=True):
        assert line["prompt"] == row["arguments"][0][0], "the same prompt"
        values = [float(response[0][0]) for response in row["resps"]]
        assert list(line["loglikelihoods"].values()) == pytest.approx(values, abs=1e-4)
        assert line["text"] == LETTERS[max(range(4), key=values.__getitem__)]
    truth = json.loads((data / "mmlu/out/annotations.json").read_text())
    right = score_mmlu(answers, truth).groups["subject"]
    for subject in SUBJECTS:
        assert right[subject].value == pytest.approx(results[f"local_mmlu_{subject}"]["acc,none"])


def test_bbh_zero_shot(tiny_llava, model, data):
    """With our prompt in the checkpoint's template lm-eval has the replies of our own programs."""
    results, samples = evaluate(model, data, [f"ours_{task}" for task in BBH], apply_chat_template=True)
    template, generation = model.template, Generation(12, stop_strings=("</s>",))
    answerer = Answerer(model.model, model.tokenizer, None, template, Path(), generation)
    for task in BBH:
        rows = [row for row in samples[f"ours_{task}"] if row["filter"] == "strict-match"]
        found = {row["doc_id"]: row for row in samples[f"ours_{task}"] if row["filter"] == "flexible-extract"}
        questions = [Question(i, f"{task}/{i}", bbh_prompt(row["doc"]["input"]), None) for i, row in enumerate(rows)]
        replies = answerer.answer(questions)
        assert [row["resps"][0][0].strip() for row in rows] == replies, "the same replies"
        answers = [{"question_id": q.question_id, "text": text} for q, text in zip(questions, replies, strict=True)]
        truth = {
            q.question_id: {"task": task, "input": row["doc"]["input"], "target": row["target"]}
            for q, row in zip(questions, rows, strict=True)
        }
        report = score_bbh(answers, truth)
        assert report.metrics["strict"].value == pytest.approx(results[f"ours_{task}"]["exact_match,strict-match"])
        assert len(found) == len(rows) == 5


# Reply, whether it is right by lm-eval (strict, flexible), and by our rules; the table of docs/evaluation.md.
REPLIES = [
    ("boolean_expressions", "False", (1, 1), (1, 1)),
    ("boolean_expressions", "It is False, not True.", (0, 1), (0, 1)),
    ("boolean_expressions", " False", (0, 1), (1, 1)),
    ("date_understanding", "(B)", (1, 1), (1, 1)),
    ("date_understanding", "B", (0, 0), (0, 1)),
    ("date_understanding", "The answer: B", (0, 1), (0, 1)),
    ("object_counting", "three", (0, 1), (0, 1)),
    ("object_counting", "well-known: 3", (0, 0), (0, 1)),
    ("word_sorting", "red line at: at line red", (0, 1), (0, 1)),
]


def test_rules_of_bbh(data):
    """What lm-eval's filters make of a reply, and what our rules make of it: equal, but for the listed differences."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(data), include_defaults=False)
    for task, reply, theirs, own in REPLIES:
        loaded = manager.load([f"local_{task}"])["tasks"][f"local_{task}"]
        loaded.set_config("num_fewshot", 0)
        loaded.build_all_requests(limit=1)
        (instance,) = loaded.instances
        instance.resps.append(reply)
        loaded.apply_filters()
        metrics = [loaded.process_results(instance.doc, [text]) for text in instance.filtered_resps.values()]
        assert tuple(int(metric["exact_match"]) for metric in metrics) == theirs, reply
        question, target = instance.doc["input"], instance.doc["target"]
        found = strict_match(reply, target), flexible_match(task, question, reply, target)[0]
        assert tuple(map(int, found)) == own, reply


def test_wikitext(tiny_llava, model, data, tmp_path):
    """The same log-likelihood of each document and the same perplexities as `perplexity --as-lm-eval`."""
    from llava.eval.answering.flags import perplexity_parser
    from llava.eval.answering.perplexity import perplexities

    for length in (None, 40):
        lm = model if length is None else ours(tiny_llava, max_length=length, batch_size="auto")
        results, samples = evaluate(lm, data, ["local_wikitext"])
        flags = [
            "--model-path",
            tiny_llava,
            "--text-file",
            data / "wikitext.jsonl",
            "--report-file",
            tmp_path / "r.json",
        ]
        flags += ["--as-lm-eval", "--device", "cpu"] + (["--context", length] if length else [])
        args = perplexity_parser().parse_args(list(map(str, flags)))
        pieces, _ = Corpus.open(args, open_model(args)).measure(model.model, model.tokenizer, None)
        theirs = [row["word_perplexity"] for row in samples["local_wikitext"]]
        assert [(-piece.nll, piece.words) for piece in pieces] == [
            (pytest.approx(total, rel=1e-6), words) for total, words in theirs
        ]
        measured = perplexities(pieces)
        for ours_is, name in (("perplexity (word)", "word_perplexity"), ("perplexity (byte)", "byte_perplexity")):
            assert measured[ours_is].value == pytest.approx(results["local_wikitext"][f"{name},none"], rel=1e-6)


def test_as_lm_evals_own_model(backbones, data):
    """A plain language model by `llava_vr` and by lm-eval's `hf`: the same requests, likelihoods and texts."""
    pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.models.huggingface import HFLM

    folder = str(backbones["bunny-qwen2"])
    models = ours(folder), HFLM(folder, device="cpu", dtype="float32", batch_size=1)
    tasks = ["local_mmlu_anatomy", "local_wikitext", *(f"local_{task}" for task in BBH)]
    found = [evaluate(lm, data, tasks, gen_kwargs={"max_gen_toks": 12})[1] for lm in models]
    for task in tasks:
        assert len(found[0][task]) == len(found[1][task])
        for own, other in zip(*(samples[task] for samples in found), strict=True):
            assert own["arguments"] == other["arguments"]
            if task.startswith("local_mmlu") or task == "local_wikitext":
                assert numbers(own["resps"]) == pytest.approx(numbers(other["resps"]), rel=1e-5, abs=1e-4)
            else:
                assert own["resps"] == other["resps"]


def numbers(responses):
    """Log-likelihoods; lm-eval also writes whether a continuation is the greedy one."""
    return [float(first[0] if isinstance(first, tuple | list) else first) for (first,) in responses]


@pytest.mark.parametrize("kind", ["lora", "pruned", "bunny"])
def test_every_kind_of_checkpoint(kind, tiny_llava, tiny_lora, make_bunny, command, tmp_path):
    """The first tokens of each are those of the loaded model itself."""
    if kind == "pruned":
        command("prune", "--model-path", tiny_llava, "--layers", "1,2", "--output", tmp_path / "pruned")
    folder = {"lora": tiny_lora, "pruned": tmp_path / "pruned", "bunny": None}[kind] or make_bunny("bunny-qwen2")
    lm = ours(folder, batch_size="auto")
    prompts = ["Where is the red line?", "Is there a circle? please", "No"]
    texts = lm.generate_until([request(prompt, {"max_gen_toks": 8, "until": "\n\n"}) for prompt in prompts])
    tokenizer, model, _, _ = load_checkpoint(open_checkpoint(folder), device="cpu", text_only=True)
    for prompt, text in zip(prompts, texts, strict=True):
        ids = torch.tensor([tokenizer(prompt).input_ids])
        output = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
        assert text == ids_to_text(tokenizer, output[0]).split("\n\n")[0]
    ((total, _),) = lm.loglikelihood([request("Where is", " the line")])
    assert total < 0


def request(*arguments):
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, arguments, 0)


def test_prompts_in_a_chat_template(tiny_llava, model):
    """What lm-eval renders with our Jinja is what our answerer asks, token for token; a system turn replaces ours."""
    turns = [{"role": "user", "content": "Where is the red line?"}]
    answerer = Answerer(model.model, model.tokenizer, None, model.template, Path())
    rendered = model.apply_chat_template(turns)
    ids = answerer.prompt_ids(Question(0, 0, turns[0]["content"], None)).tolist()
    assert model.answerer.prompt_ids(Question(0, 0, rendered, None)).tolist() == ids
    assert model.chat_template(True) == chat_template(model.template)
    opened = model.apply_chat_template(
        [*turns, {"role": "assistant", "content": "At the"}], add_generation_prompt=False
    )
    assert opened == f"{rendered} At the"
    assert model.apply_chat_template([{"role": "system", "content": "Be brief."}, *turns]).startswith("Be brief. USER")
    with pytest.raises(EvaluationError, match="give --model_args conv_mode=chatml"):
        model.chat_template("chatml")


def test_a_prompt_with_bos_gets_no_second_one(model):
    """As a tokenizer's own chat template writes it."""
    ids = model.tokenizer("<s>Where is", add_special_tokens=False).input_ids
    assert ids.count(1) == 1
    assert model.answerer.prompt_ids(Question(0, 0, "<s>Where is", None)).tolist() == ids
    assert encode_pair(model.tokenizer, "<s>Where is", " it?")[0] == ids


def test_long_prompts_lose_their_beginning(tiny_llava, capsys):
    lm = ours(tiny_llava, max_length=40)
    long, end = "please " * 60, "Where is the red line?"
    kwargs = {"max_gen_toks": 8, "until": []}
    texts = lm.generate_until([request(long + end, kwargs), request(end, kwargs)])
    assert "note: 1 of 2 prompts do not fit into 40 tokens and lost their beginning" in capsys.readouterr().err
    kept = lm.tokenizer(long + end).input_ids[-32:]
    output = lm.model.generate(torch.tensor([kept]), max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert texts[0] == ids_to_text(lm.tokenizer, output[0])
    with pytest.raises(EvaluationError, match="asks for 40 new tokens, and the model reads 40"):
        lm.generate_until([request(end, kwargs | {"max_gen_toks": 40})])


def test_generation_kwargs(model):
    made = model.generation({"until": ["\n", "Q:"], "do_sample": False, "temperature": 0.7, "top_k": 3})
    assert (made.temperature, made.max_new_tokens, made.stop_strings) == (0.0, 256, ("\n", "Q:", "</s>"))
    made = model.generation({"until": "x", "max_tokens": 7, "do_sample": True, "top_p": 0.9, "num_beams": None})
    assert (made.temperature, made.max_new_tokens, made.top_p, made.num_beams) == (1.0, 7, 0.9, 1)
    assert model.generation({"temperature": 0.3}).temperature == 0.3
    with pytest.raises(EvaluationError, match=r"does not have: penalty=2, top_k=3 \(only 50\); it has: until"):
        model.generation({"penalty": 2, "top_k": 3, "do_sample": True})


def test_wrong_arguments_are_named_at_once(tiny_llava):
    with pytest.raises(EvaluationError) as error:
        LlavaVR(dtype="fp8", device="gpu", batch_size=0, model_bas="x", conv_mode="vicunna_v1")
    said = str(error.value)
    for words in (
        "pretrained=CHECKPOINT is needed",
        "dtype=fp8: allowed: fp32",
        "device=gpu: 'gpu' is not a device",
        "batch_size: '0' is not",
        "model_bas: no such argument; did you mean 'model_base'?",
        "did you mean 'vicuna_v1'?",
    ):
        assert words in said
    assert "\n" not in said
    positions = AutoConfig.from_pretrained(tiny_llava).max_position_embeddings
    with pytest.raises(EvaluationError, match=f"beyond the {positions} positions"):
        ours(tiny_llava, max_length=positions + 1)


def test_results_are_kept_as_they_are_found(model, monkeypatch):
    """lm-eval's --use_cache holds what was done before an interruption."""
    kept = []
    monkeypatch.setattr(model.cache_hook, "add_partial", lambda *entry: kept.append(entry))
    model.generate_until([request("Where", {"max_gen_toks": 2})])
    model.loglikelihood([request("Where", " is")])
    model.loglikelihood_rolling([request("Where is it?")])
    assert [(kind, arguments[0]) for kind, arguments, _ in kept] == [
        ("generate_until", "Where"),
        ("loglikelihood", "Where"),
        ("loglikelihood_rolling", "Where is it?"),
    ]


def test_lm_evals_command_line(tiny_llava, data, tmp_path, program, capsys, monkeypatch):
    """`python -m llava.eval.harness run --model llava_vr`; a wrong argument is one line."""
    words = ["run", "--model", "llava_vr", "--tasks", "local_wikitext", "--include_path", data]
    words += ["--model_args", f"pretrained={tiny_llava},dtype=float32", "--device", "cpu", "--batch_size", "auto"]
    program("llava.eval.harness", *words, "--output_path", tmp_path / "out", "--log_samples")
    assert "word_perplexity" in capsys.readouterr().out
    (file,) = (tmp_path / "out").rglob("results_*.json")
    written = json.loads(file.read_text())
    assert written["config"]["conversation_template"] == "vicuna_v1"
    with pytest.raises(SystemExit, match=r"^error: model_args of llava_vr: pretraind: no such argument") as error:
        program("llava.eval.harness", *words, "--model_args", "pretraind=x")
    assert "\n" not in str(error.value)


def test_two_processes(tiny_llava, model, data, tmp_path, start):
    """As torchrun starts them, each answers its part; the results are those of one process, and written once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tasks = ["local_mmlu_anatomy", "local_wikitext"]
    words = ["-m", "llava.eval.harness", "run", "--model", "llava_vr", "--tasks", ",".join(tasks), "--device", "cpu"]
    words += ["--model_args", f"pretrained={tiny_llava},dtype=float32", "--include_path", data]
    running = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "HF_DATASETS_CACHE": tmp_path / "datasets"}
        environment = os.environ | {name: str(value) for name, value in place.items()}
        running.append(start(*words, "--output_path", tmp_path / "out", environment=environment))
    assert [process.wait() for process in running] == [0, 0]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(file.read_text())
    assert [found["n-samples"][task]["effective"] for task in tasks] == [6, 3]
    results, _ = evaluate(model, data, tasks)
    for task, name in ((tasks[0], "acc,none"), (tasks[1], "word_perplexity,none"), (tasks[1], "bits_per_byte,none")):
        assert found["results"][task][name] == pytest.approx(results[task][name], rel=1e-6)
