"""Draw the screenshots of docs/editor.md in headless Chromium, with the bundled network.

    python docs/make_screenshots.py
    python docs/make_screenshots.py --all=shots

The second line draws every state of the page instead: wide and narrow, in light and dark colours.
Needs the extra `web`, Playwright and a Chromium.
"""

import argparse
import io
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
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

WIDE, NARROW = {"width": 1360, "height": 960}, {"width": 360, "height": 780}
SEED = 20
"""First of the seeds that the page takes for random ones."""
SHOWN = {
    "edited": ("editor-wide", WIDE, "light"),
    "start": ("editor-narrow", NARROW, "light"),
    "photo": ("editor-photo", WIDE, "light"),
    "found": ("editor-dark", WIDE, "dark"),
}
"""Pictures of docs/editor.md by state: name, size, colours."""


def until(page: Page, condition: str) -> None:
    while not page.evaluate(condition):
        page.wait_for_timeout(50)


def do(page: Page, action: Callable[[], object]) -> None:
    shown = page.evaluate("Number(document.body.dataset.shown || 0)")
    action()
    until(page, f"Number(document.body.dataset.shown || 0) > {shown}")


def states(page: Page, address: str, desk: Desk) -> Iterator[str]:
    """Brings the page from state to state, and yields the name of each."""
    page.goto(address)
    until(page, "document.body.dataset.shown")
    until(page, "document.querySelectorAll('#donors img').length > 0")
    yield "start"
    do(page, lambda: page.click("#new-texture"))
    do(page, lambda: page.locator("#direction-0").fill("2"))
    do(page, lambda: page.locator("#move-scale").fill("1.1"))
    do(page, lambda: page.locator("input[value=cloth]").check(force=True) or page.click("#new-both"))
    page.locator("input[value=hair]").check(force=True)
    yield "edited"
    page.click("#find")
    yield "finding"
    until(page, "document.getElementById('find').hidden")
    yield "found"
    page.check("#lock")
    do(page, lambda: page.click("#reroll"))
    do(page, lambda: page.locator("input[value=hat]").check(force=True) or page.uncheck("#draw"))
    page.locator("input[value=hair]").check(force=True)
    yield "locked"
    do(page, lambda: page.locator("#move-dx").fill("0.2"))
    do(page, lambda: page.locator("#donors button").nth(1).click())
    yield "moved"
    page.click("#help-open")
    yield "help"
    page.keyboard.press("Escape")
    page.evaluate("document.body.classList.add('dropping')")
    yield "dropping"
    page.evaluate("document.body.classList.remove('dropping')")
    text = {"name": "notes.png", "mimeType": "image/png", "buffer": b"just text"}
    page.set_input_files("#photo-file", text)
    page.wait_for_selector("#alert:not([hidden])")
    yield "error"
    page.click("#alert-close")
    data, _ = drawn_photo(desk, 400)
    page.set_input_files("#photo-file", {"name": "me.png", "mimeType": "image/png", "buffer": data})
    until(page, "document.getElementById('photo-stage').textContent.includes('step')")
    yield "searching"
    until(page, "document.getElementById('photo-progress').hidden")
    do(page, lambda: page.click("#new-both"))
    until(page, "document.getElementById('blend').naturalWidth > 0")
    page.wait_for_timeout(1500)
    yield "photo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", type=Path, metavar="DIR", help="draw every state into this folder")
    everywhere = parser.parse_args().all
    bundled = legacy.find_network()
    shelf = NetworkShelf(legacy.load_network, {bundled.stem: str(bundled)}, short=[bundled.stem])
    desk = Desk(shelf, bundled.stem)
    server = uvicorn.Server(uvicorn.Config(create_app(desk, ("127.0.0.1",)), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=WIDE, reduced_motion="reduce")
        page.add_init_script(f"let n = {SEED}; crypto.getRandomValues = (a) => {{ a[0] = n++; return a; }};")
        page.on("pageerror", lambda error: print(f"Error on the page: {error}"))
        for state in states(page, address, desk):
            if everywhere is not None:
                shots = [
                    (everywhere / f"{state}-{'wide' if size is WIDE else 'narrow'}-{scheme}.png", size, scheme)
                    for size in (WIDE, NARROW)
                    for scheme in ("light", "dark")
                ]
            else:
                found = [SHOWN[state]] if state in SHOWN else []
                shots = [(Path(__file__).with_name(f"{name}.png"), size, scheme) for name, size, scheme in found]
                page.wait_for_timeout(4500 if shots else 0)  # until the status line is gone
            for path, size, scheme in shots:
                path.parent.mkdir(parents=True, exist_ok=True)
                page.set_viewport_size(size)
                page.emulate_media(color_scheme=scheme)
                page.evaluate("scrollTo(0, 0)")
                page.evaluate("document.getElementById('controls').scrollTo(0, 0)")
                whole = everywhere is not None and size is NARROW and state in ("start", "found", "photo")
                picture = PIL.Image.open(io.BytesIO(page.screenshot(full_page=whole)))
                picture = picture.convert("RGB")
                if everywhere is None:
                    picture = picture.quantize(256)
                picture.save(path)
                print(f"Wrote {path}: {path.stat().st_size / 1024:.0f} KiB", flush=True)
            page.set_viewport_size(WIDE)
        browser.close()
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
