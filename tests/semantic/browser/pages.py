"""What tests do with the page: open it, wait, click, and read its canvases."""

import base64
import time

import numpy as np
import PIL.Image


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
    page.mouse.click(*point_in(page, desk, name))


def point_in(page, desk, name):
    """Where a region is on the screen: the middle of the widest run of its pixels."""
    found = region_mask(page, desk, name)
    y = int(found.sum(axis=1).argmax())
    x = int(np.flatnonzero(found[y])[found[y].sum() // 2])
    box = page.locator("#image").bounding_box()
    side = len(found)
    return box["x"] + (x + 0.5) * box["width"] / side, box["y"] + (y + 0.5) * box["height"] / side


def download(page, tmp_path, selector):
    with page.expect_download() as info:
        page.click(selector)
    path = tmp_path / info.value.suggested_filename
    info.value.save_as(path)
    return path


def drop_file(page, name, data):
    """Drop a file onto the page, as from the desktop."""
    page.evaluate(
        """([name, text]) => {
            const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([data], name));
            for (const kind of ['dragenter', 'dragover', 'drop']) {
                const options = { bubbles: true, cancelable: true, dataTransfer: transfer };
                document.body.dispatchEvent(new DragEvent(kind, options));
            }
        }""",
        [name, base64.b64encode(data).decode()],
    )


def refusal(page):
    """The words in which the page refuses something."""
    until(page, "!document.getElementById('alert').hidden")
    return page.inner_text("#alert-text")


def saved_image(page, tmp_path):
    return np.asarray(PIL.Image.open(download(page, tmp_path, "#save-image"))).astype(int)
