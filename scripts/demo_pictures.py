"""Takes the pictures of docs/demo.md: docs/pictures/demo.png and layers_page.png.

    pip install -c constraints.txt -e '.[demo]' playwright; apt-get install chromium
    python scripts/demo_pictures.py --image-file PHOTO.png --question "..." --model-path A --compare B --scores S.json

Starts the page as a user does, and drives Debian's Chromium. Ends with an error if the page asks for anything outside
this machine.
"""

import argparse
import io
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

from llava.files import written_whole
from llava.flags import Parser, run_program

FOLDER = Path(__file__).parents[1] / "docs/pictures"
_SECONDS = 300
_COLOURS = 96


def _main() -> None:
    parser = Parser(description="Takes the pictures of docs/demo.md")
    for name in ("--model-path", "--compare", "--scores", "--image-file", "--question"):
        parser.add_argument(name, required=True)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    flags = ["--model-path", args.model_path, "--compare", args.compare, "--scores", args.scores]
    command = [sys.executable, "-m", "visual_region", "demo", *flags, "--port", address.rpartition(":")[2]]
    server = subprocess.Popen(command)
    try:
        _wait_for(address, server)
        _take(args, address)
    finally:
        server.terminate()
        server.wait()


def _wait_for(address: str, server: subprocess.Popen) -> None:
    for _ in range(_SECONDS):
        if server.poll() is not None:
            raise ValueError(f"the page ended with status {server.returncode}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(1)
        else:
            return
    raise ValueError(f"the page did not start within {_SECONDS} s")


def _take(args: argparse.Namespace, address: str) -> None:
    from playwright.sync_api import sync_playwright

    foreign = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(1000 * _SECONDS)
        page.on("request", lambda request: None if _here(request.url, address) else foreign.add(request.url))
        page.goto(address)
        page.locator("input[type=file]").first.set_input_files(args.image_file)
        page.get_by_label("Remove Image").wait_for()
        page.get_by_label("Question").fill(args.question)
        page.get_by_role("button", name="Ask", exact=True).click()
        page.get_by_text("of the attention is on the image").nth(1).wait_for()
        _picture(page, "demo")
        page.get_by_role("tab", name="Choose layers").click()
        page.get_by_text("trained parameters").wait_for()
        _picture(page, "layers_page")
        browser.close()
    if foreign:
        raise ValueError(f"the page asked for addresses outside this machine: {', '.join(sorted(foreign))}")


def _here(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def _picture(page: Any, name: str) -> None:
    # The last frames of pictures and of progress bars.
    page.wait_for_timeout(3000)
    image = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB").quantize(_COLOURS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.png"
    with written_whole(path) as aside:
        image.save(aside, format="png", optimize=True)
    print(f"{path}: {image.width} x {image.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_program(_main, interrupted="")
