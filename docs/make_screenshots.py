"""Draw the screenshots of docs/editor.md in headless Chromium, with the bundled network.

    python docs/make_screenshots.py

Needs the extra `web`, Playwright and a Chromium.
"""

import io
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import PIL.Image
import uvicorn
from playwright.sync_api import Page, sync_playwright

import legacy
from semantic.browser.desk import Desk
from semantic.browser.networks import NetworkShelf
from semantic.browser.server import create_app
from tests.semantic.browser.drawn import drawn_photo

WIDE, NARROW = {"width": 1360, "height": 1000}, {"width": 390, "height": 844}


def until(page: Page, condition: str) -> None:
    while not page.evaluate(condition):
        page.wait_for_timeout(50)


def do(page: Page, action: Callable[[], object]) -> None:
    shown = page.evaluate("Number(document.body.dataset.shown || 0)")
    action()
    until(page, f"Number(document.body.dataset.shown || 0) > {shown}")


def edited(page: Page) -> None:
    do(page, lambda: page.click("#new-texture"))
    do(page, lambda: page.locator("#move-scale").fill("1.1"))
    page.click("#find")
    until(page, "document.getElementById('directions').children.length > 0")


def photo(page: Page, desk: Desk) -> None:
    data, _ = drawn_photo(desk, 400)
    do(page, lambda: page.set_input_files("#photo-file", {"name": "me.png", "mimeType": "image/png", "buffer": data}))
    do(page, lambda: page.click("#new-texture"))
    until(page, "document.getElementById('blend').naturalWidth > 0")


def main() -> None:
    named = {"faces64": str(legacy.find_network())}
    desk = Desk(NetworkShelf(legacy.load_network, named, short=["faces64"]), "faces64")
    server = uvicorn.Server(uvicorn.Config(create_app(desk, ("127.0.0.1",)), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    shots = [
        ("editor-wide", WIDE, "light", lambda page: edited(page)),
        ("editor-dark", WIDE, "dark", lambda page: do(page, lambda: page.click("#new-both"))),
        ("editor-narrow", NARROW, "light", lambda page: None),
        ("editor-photo", WIDE, "light", lambda page: photo(page, desk)),
    ]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, size, scheme, prepare in shots:
            page = browser.new_page(viewport=size, color_scheme=scheme)
            page.goto(address)
            until(page, "document.body.dataset.shown")
            until(page, "document.querySelectorAll('#donors img').length > 0")
            prepare(page)
            page.wait_for_timeout(4500)  # until the status line is gone
            picture = PIL.Image.open(io.BytesIO(page.screenshot()))
            path = ROOT / "docs" / f"{name}.png"
            picture.convert("RGB").quantize(256).save(path, optimize=True)
            print(f"Wrote {path}: {path.stat().st_size / 1024:.0f} KiB")
            page.close()
        browser.close()
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
