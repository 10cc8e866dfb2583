"""Photos and other files on the page, in headless Chromium."""

import numpy as np
import PIL.Image

from semantic.browser import photos
from tests.semantic.browser.drawn import drawn_photo, huge_png
from tests.semantic.browser.pages import do, download, drop_file, open_page, refusal, shown_steps, until


def test_a_photo_is_dropped_edited_shown_with_the_edit_in_it_and_kept_in_a_session_file(
    page, browser, address, desk, monkeypatch, tmp_path
):
    monkeypatch.setattr(photos, "STEPS", 6)
    data, pixels = drawn_photo(desk)
    do(page, lambda: drop_file(page, "me.png", data))
    assert page.locator("#history button").count() == 1
    do(page, lambda: page.click("#new-texture"))
    until(page, "document.getElementById('blend').naturalWidth > 0")
    found = np.asarray(PIL.Image.open(download(page, tmp_path, "#save-photo")))
    assert found.shape == pixels.shape
    assert 0.3 < (found == pixels).all(axis=2).mean() < 0.999
    base = download(page, tmp_path, "#save-base")
    assert f"--latents={base.name}" in page.input_value("#command")
    assert not page.is_visible("#mask-caption")
    saved = download(page, tmp_path, "#save-session")
    with open_page(browser, address) as other:
        other.set_input_files("#session-file", saved)
        until(other, "document.querySelectorAll('#history button').length === 2")
        until(other, "document.getElementById('blend').naturalWidth > 0")
        restored = np.asarray(PIL.Image.open(download(other, tmp_path, "#save-photo")))
        assert (restored == found).all()
    page.click("#show-mask")
    assert not page.is_visible("#blend")


def test_a_second_photo_takes_the_place_of_the_one_under_way(page, desk, monkeypatch):
    monkeypatch.setattr(photos, "STEPS", 2000)
    data, _ = drawn_photo(desk)
    drop_file(page, "first.png", data)
    until(page, "document.getElementById('photo-stage').textContent !== ''")
    drop_file(page, "second.png", data)
    page.wait_for_timeout(100)
    assert page.is_visible("#photo-progress")
    before = shown_steps(page)
    page.click("#photo-stop")
    until(page, "document.getElementById('photo-progress').hidden")
    page.wait_for_timeout(200)
    assert not page.is_visible("#alert")
    assert shown_steps(page) == before
    assert page.is_enabled("#open-photo")


def test_another_network_stops_the_photo_under_way_and_keeps_its_own_history(page, desk, monkeypatch):
    monkeypatch.setattr(photos, "STEPS", 2000)
    drop_file(page, "me.png", drawn_photo(desk)[0])
    until(page, "document.getElementById('photo-stage').textContent.startsWith('Searching codes')")
    do(page, lambda: page.select_option("#network", "others"))
    until(page, "document.getElementById('photo-progress').hidden")
    assert page.is_enabled("#open-photo")
    assert not page.is_visible("#alert")
    assert page.locator("#history button").count() == 1
    assert "--seeds=2" in page.input_value("#command")


def test_files_that_are_no_photo_are_refused_on_the_page(page, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(50 << 20))
    page.set_input_files("#photo-file", tmp_path / "large.png")
    assert "large.png has 50 MB. Photos may have 20 MB" in refusal(page)
    for name, data, reason in (
        ("notes.png", b"just text", "not a PNG"),
        ("huge.png", huge_png(), "more than"),
        ("x.json", b"{}", "not a session file"),
    ):
        page.click("#alert-close")
        drop_file(page, name, data)
        assert reason in refusal(page)
    page.click("#alert-close")
    do(page, lambda: page.click("#new-texture"))
