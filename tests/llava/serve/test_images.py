"""Images from files and web addresses; every failure is one sentence."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest
from PIL import Image

from llava.serve.images import ImageSourceError, load_image


def png() -> bytes:
    data = BytesIO()
    Image.new("L", (5, 4), 7).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def server():
    """Serves /ok.png, /text and /slow on 127.0.0.1."""
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/slow":
                release.wait(10)
            known = {"/ok.png": png(), "/text": b"no image", "/slow": b""}
            self.send_response(200 if self.path in known else 404)
            self.end_headers()
            self.wfile.write(known.get(self.path, b""))

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    release.set()
    server.shutdown()


def test_file_and_address(server, tmp_path):
    (tmp_path / "grey.png").write_bytes(png())
    for source in (str(tmp_path / "grey.png"), f"{server}/ok.png"):
        image = load_image(source)
        assert image.mode == "RGB"
        assert image.size == (5, 4)


def test_failures(server, tmp_path):
    (tmp_path / "no.png").write_text("text")
    (tmp_path / "cut.png").write_bytes(png()[:40])
    for source, words in (
        (f"{server}/gone", "the server answered 404"),
        (f"{server}/text", "not an image"),
        (str(tmp_path / "nowhere.png"), "does not exist"),
        (str(tmp_path / "no.png"), "not an image"),
        (str(tmp_path / "cut.png"), "cannot be opened|not an image"),
        ("http://127.0.0.1:9/x.png", "cannot be fetched"),
    ):
        with pytest.raises(ImageSourceError, match=words):
            load_image(source)
    with pytest.raises(ImageSourceError, match=r"no answer within 0\.1 s|cannot be fetched: timed out"):
        load_image(f"{server}/slow", timeout=0.1)
