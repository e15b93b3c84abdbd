"""The page in the real Gradio and a real Chromium. The logic is tested without them, in the files next to this one."""

import json
import shutil
import socket

import pytest

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[demo]'")


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "scores.json"
    path.write_text(json.dumps({"num_layers": 6, "metrics": {"bi": {"values": [0.9, 0.1, 0.2, 0.8, 0.3, 0.4]}}}))
    return str(path)


@pytest.fixture(scope="module")
def address(scores, tiny_llava):
    from tests.visual_region.page.test_answering import arguments
    from visual_region.page.answering import load_all, open_all
    from visual_region.page.layout import build, serve

    args = arguments(tiny_llava, conv_mode="v1")
    page = build(load_all(open_all(args), args), scores, str(tiny_llava))
    yield serve(page, None)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def client(address):
    from gradio_client import Client

    return Client(address, verbose=False)


def test_only_this_machine(address):
    assert address.startswith("http://127.0.0.1:")
    port = int(address.rstrip("/").rpartition(":")[2])
    with socket.socket() as probe:
        # Another address of the same machine: the port is free there.
        probe.bind(("127.0.0.2", port))


def test_ask_over_the_interface(client, tiny):
    from gradio_client import handle_file

    message, text, note = client.predict(handle_file(tiny.images / "3.png"), "Where?", 6, 0, api_name="/ask")
    assert message == ""
    assert text
    assert "first token after" in note


def test_wrong_input_is_shown_in_the_page(client):
    assert client.predict(None, " ", 6, 0, api_name="/ask")[0] == "**Error:** type a question first"
    assert "from 1 to 1024" in client.predict(None, "Where?", 0, 0, api_name="/ask")[0]
    found = client.predict("nowhere.json", None, None, "0", "", "lora", 4, 10, 20, api_name="/choose")
    assert "nowhere.json is not a score file" in found[0]


def test_choose_over_the_interface(client, scores, tiny_llava):
    found = client.predict(scores, "bi", None, "#bi:2", str(tiny_llava), "lora", 4, 10, 20, api_name="/choose")
    message, picture, table, flags, cost = found
    assert message == ""
    assert picture
    assert flags == "--tune_layers 0,3"
    assert "bi:2" in table
    assert "trained parameters" in cost


def test_in_chromium_nothing_is_fetched_from_elsewhere(address, tiny):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    asked, errors = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_role("button", name="Ask", exact=True).click()
        page.get_by_text("type a question first").wait_for()
        page.get_by_role("tab", name="Choose layers").click()
        page.get_by_text("trained parameters").wait_for()
        assert (
            page.locator("#flags textarea").input_value() == "--tune_layers 0,5\n--tune_layers 0,3\n--tune_layers 0,3"
        )
        browser.close()
    foreign = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert asked
    assert not foreign
    assert not errors
