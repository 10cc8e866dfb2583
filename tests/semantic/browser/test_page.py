"""The page in headless Chromium: what people do with it."""

import base64
import json
import shlex
import shutil
import threading
import time

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import edit

uvicorn = pytest.importorskip("uvicorn", reason="the extra web is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from semantic.browser import photos  # noqa: E402
from semantic.browser.server import create_app  # noqa: E402
from tests.semantic.browser.drawn import drawn_photo  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine", allow_module_level=True)
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def address(desk):
    config = uvicorn.Config(create_app(desk, ("127.0.0.1",)), port=0, log_level="warning", server_header=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(browser, address):
    with open_page(browser, address) as page:
        yield page


class open_page:
    """A page of its own context, drawn; nothing may go wrong in its scripts."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.address, self.errors = address, []

    def __enter__(self):
        self.context.add_init_script("let n = 100; crypto.getRandomValues = (a) => { a[0] = n++; return a; };")
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if "Content Security" in said.text else None)
        page.goto(self.address)
        wait_shown(page, 0)
        return page

    def __exit__(self, *problem):
        self.context.close()
        assert self.errors == []


def shown_steps(page):
    return int(page.evaluate("document.body.dataset.shown || 0"))


def until(page, condition):
    """Wait for a condition on the page; Playwright's own waiting needs `eval`, which the page's policy forbids."""
    end = time.monotonic() + 120
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def wait_shown(page, before):
    until(page, f"Number(document.body.dataset.shown || 0) > {before}")


def do(page, action):
    """Do something and wait for the picture that follows."""
    before = shown_steps(page)
    action()
    wait_shown(page, before)


def canvas(page, name):
    """Pixels of a canvas, int [side, side, 3]."""
    data = page.evaluate(
        """(name) => {
            const canvas = document.getElementById(name);
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            let text = '';
            for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
            return btoa(text);
        }""",
        name,
    )
    pixels = np.frombuffer(base64.b64decode(data), np.uint8)
    side = int(np.sqrt(len(pixels) // 4))
    return pixels.reshape(side, side, 4)[..., :3].astype(int)


def image(page):
    return canvas(page, "image")


def region_mask(page, desk, name):
    regions = desk.shelf.get("faces").G.regions
    return (canvas(page, "mask") == np.array(regions.colors[regions.index(name)])).all(axis=2)


def click_region(page, desk, name):
    """Click the middle of the widest run of a region's pixels."""
    found = region_mask(page, desk, name)
    y = int(found.sum(axis=1).argmax())
    x = int(np.flatnonzero(found[y])[found[y].sum() // 2])
    box = page.locator("#image").bounding_box()
    side = len(found)
    page.mouse.click(box["x"] + (x + 0.5) * box["width"] / side, box["y"] + (y + 0.5) * box["height"] / side)


def download(page, tmp_path, selector):
    with page.expect_download() as info:
        page.click(selector)
    path = tmp_path / info.value.suggested_filename
    info.value.save_as(path)
    return path


def saved_image(page, tmp_path):
    return np.asarray(PIL.Image.open(download(page, tmp_path, "#save-image"))).astype(int)


def test_clicking_hair_and_changing_its_texture_changes_hair_and_undo_brings_it_back(page, desk, tmp_path):
    first, before, shown = saved_image(page, tmp_path), image(page), region_mask(page, desk, "hair")
    click_region(page, desk, "hair")
    assert page.inner_text("#region-name") == "hair"
    do(page, lambda: page.click("#new-texture"))
    change = np.abs(saved_image(page, tmp_path) - first).sum(axis=2)
    union = shown | region_mask(page, desk, "hair")
    assert change.sum() > 0
    assert change[union].sum() / change.sum() >= 0.9
    after = image(page)
    do(page, lambda: page.keyboard.press("Control+z"))
    assert (image(page) == before).all()
    do(page, lambda: page.keyboard.press("Control+Shift+z"))
    assert (image(page) == after).all()


def test_sliders_dragging_and_keys_move_a_region(page, desk):
    before = region_mask(page, desk, "hair")
    do(page, lambda: page.locator("#move-dx").fill("0.2"))
    assert center(region_mask(page, desk, "hair"))[0] > center(before)[0] + 2
    do(page, lambda: page.click("#undo"))
    assert (region_mask(page, desk, "hair") == before).all()
    page.focus("#image")
    do(page, lambda: page.keyboard.press("ArrowRight"))
    assert "--transform=hair:dx=0.04" in page.input_value("#command")
    do(page, lambda: page.click("#undo"))

    box, (_, y) = page.locator("#image").bounding_box(), center(before)
    row = np.flatnonzero(before[int(y)])
    start = box["x"] + (row[len(row) // 4] + 0.5) * box["width"] / 64, box["y"] + (int(y) + 0.5) * box["height"] / 64
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] - 20, start[1], steps=3)
    do(page, lambda: (page.mouse.move(start[0] - 0.1 * box["width"], start[1]), page.mouse.up()))
    assert center(region_mask(page, desk, "hair"))[0] < center(before)[0] - 2
    assert "--transform=hair:dx=-0.2" in page.input_value("#command")


def center(found):
    y, x = np.nonzero(found)
    return x.mean(), y.mean()


def test_locked_regions_stay_when_the_rest_is_drawn_anew(page, desk):
    page.check("#lock-7")
    do(page, lambda: page.click("#reroll"))
    command = page.input_value("#command")
    assert "--swap=hair:2:both" in command
    assert "--seeds=2" not in command
    page.uncheck("#draw-7")
    until(page, "document.getElementById('command').value.includes('--drop=hair')")
    assert not region_mask(page, desk, "hair").any()


def test_a_session_file_restores_everything(page, desk, browser, address, tmp_path):
    do(page, lambda: page.click("#new-both"))
    do(page, lambda: page.locator("#region-psi").fill("0.5"))
    command, shown = page.input_value("#command"), image(page)
    saved = download(page, tmp_path, "#save-session")
    with open_page(browser, address) as other:
        other.set_input_files("#session-file", saved)
        until(other, "document.querySelectorAll('#history button').length === 3")
        other.wait_for_timeout(200)
        assert other.input_value("#command") == command
        assert (image(other) == shown).all()
        do(other, lambda: other.click("#undo"))
    page.set_input_files("#session-file", {"name": "x.json", "mimeType": "application/json", "buffer": b"{}"})
    page.wait_for_selector("#alert:not([hidden])")
    assert "not a session file" in page.inner_text("#alert-text")


def test_the_copied_command_and_the_saved_latents_give_the_picture_of_the_page(page, bundled, tmp_path):
    do(page, lambda: page.click("#new-texture"))
    do(page, lambda: page.locator("#move-scale").fill("1.2"))
    shown = saved_image(page, tmp_path)
    stored = download(page, tmp_path, "#save-latents")
    words = shlex.split(page.input_value("#command").replace("--network=faces", "--network=faces64"))
    commands = [
        [*words[2:-1], f"--outdir={tmp_path / 'a'}"],
        ["--network=faces64", f"--latents={stored}", f"--outdir={tmp_path / 'b'}"],
    ]
    for command, folder in zip(commands, "ab", strict=True):
        done = CliRunner().invoke(edit.main, command)
        assert done.exit_code == 0, done.output
        drawn = np.asarray(PIL.Image.open(tmp_path / folder / "edit.png")).astype(int)
        assert np.abs(drawn - shown).max() <= 1


def test_two_contexts_stay_separate(page, browser, address):
    do(page, lambda: page.click("#new-both"))
    shown = image(page)
    with open_page(browser, address) as other:
        assert other.locator("#history button").count() == 1
        do(other, lambda: other.click("#reroll"))
        assert (image(other) != shown).any()
    do(page, lambda: page.click("#undo"))
    do(page, lambda: page.click("#redo"))
    assert (image(page) == shown).all()


@pytest.mark.parametrize(("size", "dark"), [((1280, 900), False), ((360, 740), True), ((360, 740), False)])
def test_nothing_serious_stands_in_the_way_of_anyone(browser, address, size, dark):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    options = {"color_scheme": "dark" if dark else "light", "reduced_motion": "reduce"}
    with open_page(browser, address, bypass_csp=True, **options) as page:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.wait_for_selector("#donors img")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        found = axe.Axe().run(page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert serious == [], json.dumps([(v["id"], v["nodes"][0]["html"]) for v in serious])
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0]


def test_a_photo_is_opened_edited_and_shown_with_the_edit_in_it(page, desk, monkeypatch, tmp_path):
    monkeypatch.setattr(photos, "STEPS", 6)
    data, pixels = drawn_photo(desk)
    photo = {"name": "me.png", "mimeType": "image/png", "buffer": data}
    do(page, lambda: page.set_input_files("#photo-file", photo))
    assert page.locator("#history button").count() == 1
    do(page, lambda: page.click("#new-texture"))
    until(page, "document.getElementById('blend').naturalWidth > 0")
    found = np.asarray(PIL.Image.open(download(page, tmp_path, "#save-photo")))
    assert found.shape == pixels.shape
    assert 0.3 < (found == pixels).all(axis=2).mean() < 0.999
    base = download(page, tmp_path, "#save-base")
    assert f"--latents={base.name}" in page.input_value("#command")


@pytest.mark.parametrize(("data", "reason"), [(b"just text", "not a PNG"), (bytes(21 << 20), "Photos may have 20 MB")])
def test_what_is_no_photo_is_refused_on_the_page(page, tmp_path, data, reason):
    (tmp_path / "x.png").write_bytes(data)
    page.set_input_files("#photo-file", tmp_path / "x.png")
    page.wait_for_selector("#alert:not([hidden])")
    assert reason in page.inner_text("#alert-text")
    page.click("#alert-close")
    do(page, lambda: page.click("#new-texture"))
