"""The page in headless Chromium: what people do with it."""

import shlex

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import edit
import legacy
from semantic.browser import desk as desk_module
from semantic.browser.desk import Desk
from semantic.browser.networks import NetworkShelf
from tests.semantic.browser.pages import (
    click_region,
    do,
    download,
    drop_file,
    image,
    open_page,
    refusal,
    region_mask,
    saved_image,
    until,
)
from tests.semantic.browser.small import generator, plain_generator, save


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
    page.check("#lock")
    do(page, lambda: page.click("#reroll"))
    command = page.input_value("#command")
    assert "--swap=hair:2:both" in command
    assert "--seeds=2" not in command
    page.uncheck("#draw")
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
        assert serious_problems(axe, page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        page.click("#help-open")
        assert serious_problems(axe, page) == []
        page.keyboard.press("Escape")
        page.check("#lock")
        do(page, lambda: page.uncheck("#draw"))
        drop_file(page, "notes.png", b"just text")
        assert "not a PNG" in refusal(page)
        assert serious_problems(axe, page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def serious_problems(axe, page):
    """Names and places of what axe finds serious on the page."""
    found = axe.Axe().run(page).response["violations"]
    return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]


def test_a_region_is_taken_from_another_face_by_dragging_it_and_by_the_keyboard(page, desk):
    until(page, "document.querySelectorAll('#donors img').length === 6")
    donors = page.locator("#donors button")
    before, seed = image(page), donors.nth(0).get_attribute("data-seed")
    do(page, lambda: donors.nth(0).drag_to(page.locator("#image")))
    assert f"--swap=hair:{seed}:both" in page.input_value("#command")
    dragged = image(page)
    assert (dragged != before).any()
    do(page, lambda: page.keyboard.press("Control+z"))
    assert (image(page) == before).all()
    donors.nth(0).focus()
    do(page, lambda: page.keyboard.press("Enter"))
    assert (image(page) == dragged).all()
    page.select_option("#donor-part", "texture")
    do(page, lambda: donors.nth(1).click())
    assert f"--swap=hair:{donors.nth(1).get_attribute('data-seed')}:texture" in page.input_value("#command")


def test_keys_do_what_buttons_do(page, desk):
    before = image(page)
    page.focus("input[name=region][value=hair]")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#region-name") == "neck"
    page.keyboard.press("ArrowUp")
    for key, word in (("t", ":texture"), ("s", ":shape"), ("x", "--drop=hair")):
        do(page, lambda key=key: page.keyboard.press(key))
        assert word in page.input_value("#command")
    page.keyboard.press("l")
    assert page.is_checked("#lock")
    assert page.get_attribute("input[value=hair]", "aria-label") == "hair, locked, left out"
    page.keyboard.down("c")
    until(page, "document.getElementById('compare').getAttribute('aria-pressed') === 'true'")
    page.wait_for_timeout(100)
    assert (image(page) == before).all()
    page.keyboard.up("c")
    do(page, lambda: page.keyboard.press("n"))
    assert "--swap=hair:2:both" in page.input_value("#command")


def test_directions_beside_the_network_are_there_at_once_and_a_search_adds_more(page):
    page.locator("input[value=cloth]").check(force=True)  # the label is what people click
    assert page.locator("#directions input").count() == 1
    do(page, lambda: page.locator("#direction-0").fill("2"))
    command = page.input_value("#command")
    assert "--apply=cloth/brightness:2" in command
    assert "--directions" not in command  # edit.py finds the file itself
    page.click("#find")
    until(page, "document.getElementById('find').hidden")
    assert page.locator("#directions input").count() > 4
    do(page, lambda: page.locator("#direction-1").fill("1"))
    assert "--directions=directions.npz" in page.input_value("#command")


def test_edits_move_nothing_else_on_the_page(page):
    watched = ["undo", "history", "regions", "donors", "save-image", "command"]
    places = f"{watched}.map((id) => document.getElementById(id).getBoundingClientRect()).map((box) => [box.x, box.y])"
    until(page, "document.querySelectorAll('#donors img').length === 6")
    before = page.evaluate(places)
    do(page, lambda: page.click("#new-texture"))
    do(page, lambda: page.uncheck("#draw"))
    do(page, lambda: page.click("#undo"))
    do(page, lambda: page.locator("#move-dx").fill("0.2"))
    assert page.evaluate(places) == before


def test_networks_are_chosen_from_the_list_and_what_does_not_open_leaves_the_page_as_it_was(browser, serve, tmp_path):
    for name, G in (
        ("two", generator(("sky", "bird"))),
        ("pets", generator(c_dim=3)),
        ("plain", plain_generator()),
    ):
        save(G, tmp_path / "nets" / f"{name}.pkl")
    save(generator(), tmp_path / "nets" / "00000-run" / "network-snapshot-000010.pkl")
    (tmp_path / "secret.pkl").write_bytes(b"")
    desk = Desk(
        NetworkShelf(legacy.load_network, {"two": str(tmp_path / "nets" / "two.pkl")}, tmp_path / "nets"), "two"
    )
    with open_page(browser, serve(desk)) as page:
        assert page.locator("#network option").all_inner_texts() == ["two", "00000-run", "pets", "plain"]
        assert page.locator("input[name=region]").count() == 2
        assert not page.is_visible("#class")
        do(page, lambda: page.select_option("#network", "pets"))
        assert page.is_visible("#class")
        do(page, lambda: (page.fill("#class", "2"), page.press("#class", "Enter")))
        assert "--class=2" in page.input_value("#command")
        page.select_option("#network", "plain")
        assert "plain has no regions" in refusal(page)
        assert page.input_value("#network") == "pets"
        do(page, lambda: page.click("#new-texture"))
        do(page, lambda: page.select_option("#network", "00000-run"))
        assert "network-snapshot-000010.pkl" in page.input_value("#command")
        asked = """(name) => fetch('/api/session', { method: 'POST', headers: { 'Content-Type': 'application/json' },
            body: JSON.stringify({ network: name }) }).then((answer) => answer.json())"""
        for name in (str(tmp_path / "secret.pkl"), "../secret", "secret"):
            assert "no network" in page.evaluate(asked, name)["error"]


def test_a_slider_shows_previews_while_it_moves_and_the_whole_picture_when_it_stays(page, monkeypatch):
    monkeypatch.setattr(desk_module, "PREVIEW_FROM", 64)
    tell = "(kind) => document.getElementById('move-dx').dispatchEvent(new Event(kind, { bubbles: true }))"
    page.evaluate("document.getElementById('move-dx').value = 0.3")
    page.evaluate(tell, "input")
    until(page, "document.getElementById('mask').width === 16")
    assert page.locator("#history button").count() == 1
    do(page, lambda: page.evaluate(tell, "change"))
    assert page.evaluate("document.getElementById('mask').width") == 64
    assert page.locator("#history button").count() == 2
