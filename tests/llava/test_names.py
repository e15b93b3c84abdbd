from llava.names import agree, count, listed


def test_singular_and_plural():
    assert [count(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert count(1, "answer is", "answers are") == "1 answer is"
    assert [agree(n, "is", "are") for n in (0, 1, 2)] == ["are", "is", "are"]
    assert [listed("layer", layers) for layers in ([5], [1, 2])] == ["layer 5", "layers 1, 2"]
