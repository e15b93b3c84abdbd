"""A plain language model is asked in its tokenizer's own chat template."""

import json
import shutil

import pytest
import torch

from llava.checkpoint.folder import open_checkpoint
from llava.conversation import OWN_TEMPLATE
from llava.eval.answering.arguments import make_answerer, question_template, settings
from llava.eval.answering.flags import loader_parser, mmlu_parser
from llava.eval.answering.mmlu import answer
from llava.eval.answering.questions import Question
from llava.eval.benchmarks.mmlu import MMLU, prepare
from llava.eval.benchmarks.preparing import Options
from llava.eval.suite.all import fingerprint
from llava.model.builder import load_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]\n\n{{ m['content'] }}  {{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n\n{% endif %}"
)
TEXT = "Which  is red?\nA. left\n B. at the top"


@pytest.fixture(scope="module", params=["file", "config"])
def plain(request, tiny, tmp_path_factory):
    """A plain language model with a chat template, in either of the two places where tokenizers keep it."""
    folder = tmp_path_factory.mktemp("plain") / "llm"
    shutil.copytree(tiny.llm, folder)
    if request.param == "file":
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    else:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": TEMPLATE}))
    return folder


def flags(model, *more, parser=loader_parser):
    words = ["--model-path", model, "--question-file", "q", "--answers-file", "a", "--device", "cpu", *more]
    return parser().parse_args(list(map(str, words)))


def test_ids_are_those_of_apply_chat_template(plain):
    args = flags(plain)
    checkpoint = open_checkpoint(plain)
    assert question_template(args, checkpoint) == OWN_TEMPLATE
    answerer = make_answerer(args, checkpoint)
    tokenizer = load_tokenizer(plain)
    turn = [{"role": "user", "content": TEXT}]
    expected = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    ids = answerer.prompt_ids(Question(0, 0, TEXT, None))
    assert ids.dtype == torch.int64
    assert ids.tolist() == expected
    assert expected.count(tokenizer.bos_token_id) == 1, "the template writes bos, and nothing adds a second one"
    assert isinstance(answerer.answer([Question(0, 0, TEXT, None)])[0], str)


def test_flags_and_other_checkpoints_are_asked_as_before(plain, tiny, tiny_llava):
    checkpoint = open_checkpoint(plain)
    assert question_template(flags(plain, "--conv-mode", "llava_v1"), checkpoint) == "llava_v1"
    assert question_template(flags(plain, "--raw-prompt"), checkpoint) is None
    assert open_checkpoint(tiny.llm).question_template == "vicuna_v1", "this tokenizer has no chat template"
    assert checkpoint.template == "vicuna_v1", "for conversations with answers, which are trained or scored"
    llava = open_checkpoint(tiny_llava)
    assert llava.question_template == llava.template


def test_a_llava_with_a_chat_template_keeps_its_own(tiny_llava, tmp_path):
    shutil.copytree(tiny_llava, tmp_path / "llava")
    (tmp_path / "llava" / "chat_template.jinja").write_text(TEMPLATE)
    assert open_checkpoint(tmp_path / "llava").question_template == open_checkpoint(tiny_llava).template


def test_answers_and_score_say_what_was_asked(plain, tmp_path, capsys):
    for split in ("dev", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"anatomy_{split}.csv").write_text("ab?,1,no,red,left,A\n" * 5)
    prepare(tmp_path, tmp_path / "out", Options(check_counts=False))
    checkpoint = open_checkpoint(plain)
    found = {}
    for method, conv_mode in (("generate", None), ("generate", "v1"), ("loglikelihood", None)):
        answers = tmp_path / f"{method}-{conv_mode}.jsonl"
        args = flags(plain, "--shots-file", tmp_path / "out/shots.json", "--method", method, parser=mmlu_parser)
        args.question_file, args.answers_file = str(tmp_path / "out/questions.jsonl"), str(answers)
        args.conv_mode, args.max_new_tokens = conv_mode, 2
        answer(args, checkpoint)
        annotations = str(tmp_path / "out/annotations.json")
        MMLU.score_main(["--result-file", str(answers), "--annotation-file", annotations])
        found[method, conv_mode] = json.loads(answers.with_suffix(".score.json").read_text())["details"].get("asked_in")
    assert found == {("generate", None): OWN_TEMPLATE, ("generate", "v1"): "v1", ("loglikelihood", None): None}
    printed = capsys.readouterr().out
    assert f"conversation template: {OWN_TEMPLATE}\n" in printed
    assert "conversation template: v1\n" in printed


def test_what_was_finished_in_another_template_is_asked_again(plain, tiny, tmp_path):
    (tmp_path / "q").write_text("{}")
    for model, key in ((plain, OWN_TEMPLATE), (tiny.llm, None)):
        checkpoint, args = open_checkpoint(model), flags(model)
        args.question_file = str(tmp_path / "q")
        assert settings(args, checkpoint)["conv_mode"] == (key or "vicuna_v1")
        for name in MMLU.data:
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_text("")
        assert fingerprint(checkpoint, MMLU, [], tmp_path).get("question_template") == key
