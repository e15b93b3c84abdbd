from llava.names import agree, count, listed, model_name


def test_singular_and_plural():
    assert [count(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert count(1, "answer is", "answers are") == "1 answer is"
    assert [agree(n, "is", "are") for n in (0, 1, 2)] == ["are", "is", "are"]
    assert [listed("layer", layers) for layers in ([5], [1, 2])] == ["layer 5", "layers 1, 2"]


def test_the_name_of_a_model(tmp_path, monkeypatch):
    """Of a hub id as it is; of a folder as it is called, also where the path does not say it."""
    names = {
        "org/model": "model",
        "model": "model",
        "runs/lora/": "lora",
        "/runs/lora": "lora",
        "runs/lora/checkpoint-500": "lora_checkpoint-500",
        "/checkpoint-500": "checkpoint-500",
        "": "",
    }
    (tmp_path / "lora/checkpoint-500").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "lora")
    assert {path: model_name(path) for path in names} == names
    for path, name in ((".", "lora"), ("./", "lora"), ("checkpoint-500", "lora_checkpoint-500"), ("..", tmp_path.name)):
        assert model_name(path) == name
    monkeypatch.chdir("checkpoint-500")
    assert [model_name(path) for path in (".", "..")] == ["lora_checkpoint-500", "lora"]
