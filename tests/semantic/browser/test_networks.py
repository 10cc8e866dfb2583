"""The editor with networks of other kinds: labels, two regions, none, files beside them, and a photo's own."""

import asyncio
import base64
import gc
import io
import json
import shlex
import threading
import weakref

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import edit
import legacy
from dnnlib import UserError
from semantic.browser import desk as module
from semantic.browser import session as limits
from semantic.browser.desk import Desk
from semantic.browser.networks import NetworkShelf, Source
from semantic.editing import edits
from semantic.editing.directions import Direction, save_directions
from semantic.placement import Placement
from semantic.tuned import TUNED_DIGEST, network_digest
from tests.semantic.browser.small import generator, plain_generator, save

SCENE = {"seed": 3, "latents": None, "psi": 0.7, "edits": []}


@pytest.fixture
def open_desk():
    desks = []

    def start(named, folder=None, photo=None):
        desks.append(Desk(NetworkShelf(legacy.load_network, named, folder), next(iter(named)), photo))
        return desks[-1]

    yield start
    for desk in desks:
        desk.close()


def begin(desk, name=None):
    found = asyncio.run(desk.begin(name))
    return found, desk.sessions.get(found["session"])


def pixels(answer):
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(answer["image"])))).astype(int)


def drawn_by_edit(command, tmp_path):
    """The picture that a copied command draws."""
    done = CliRunner().invoke(edit.main, [*shlex.split(command)[2:-1], f"--outdir={tmp_path / 'out'}", "--device=cpu"])
    assert done.exit_code == 0, done.output
    return np.asarray(PIL.Image.open(tmp_path / "out" / "edit.png")).astype(int)


def test_a_network_with_labels_draws_the_class_that_the_page_names(open_desk, tmp_path):
    desk = open_desk({"pets": save(generator(c_dim=3), tmp_path / "pets.pkl")})
    found, session = begin(desk)
    assert found["classes"] == 3
    first, other = (desk.draw(session, {**SCENE, "label": label}, False) for label in (0, 2))
    assert (pixels(first) != pixels(other)).any()
    swapped = {"op": "swap", "region": "hair", "seed": 5, "part": "both"}
    answer = desk.draw(session, {**SCENE, "label": 2, "edits": [swapped]}, False)
    assert np.abs(drawn_by_edit(answer["command"], tmp_path) - pixels(answer)).max() <= 1
    assert desk.faces(session, [1], 0.7, 0) != desk.faces(session, [1], 0.7, 1)
    with pytest.raises(UserError, match="no class 3"):
        desk.draw(session, {**SCENE, "label": 3}, False)


def test_two_regions_suffice_and_networks_without_regions_are_refused_in_words(open_desk, tmp_path):
    two = save(generator(("sky", "bird")), tmp_path / "nets" / "two.pkl")
    save(plain_generator(), tmp_path / "nets" / "plain.pkl")
    desk = open_desk({"first": two}, tmp_path / "nets")
    found, session = begin(desk, "two")
    assert [region["name"] for region in found["regions"]] == ["sky", "bird"]
    assert found["networks"] == ["first", "plain", "two"]
    moved = {"op": "transform", "region": "bird", "dx": 0.2, "dy": 0, "scale": 1, "rotate": 0}
    assert pixels(desk.draw(session, {**SCENE, "edits": [moved]}, False)).shape == (32, 32, 3)
    with pytest.raises(UserError, match="no regions"):
        begin(desk, "plain")


def test_directions_in_files_beside_networks_are_known_from_the_start(open_desk, tmp_path):
    G = generator()
    nets, run = tmp_path / "nets", tmp_path / "nets" / "00000-run"
    network = save(G, nets / "net.pkl")
    save(G, run / "network-snapshot-000010.pkl")
    (run / "training_options.json").write_text("{}")
    codes = torch.zeros(3, 16)
    codes[1] = 1
    longer = Direction("hair/longer", "pca", "hair", "shape", "by hand", codes)
    save_directions(nets / "net-directions.npz", [longer], G)
    save_directions(run / "directions.npz", [longer], G)
    desk = open_desk({"net": network}, nets)
    for name in ("net", "00000-run"):
        found, session = begin(desk, name)
        assert found["directions"]["hair"] == ["hair/longer"]
        assert found["notice"] == ""
        applied = {"op": "apply", "region": "hair", "name": "hair/longer", "strength": 2.0}
        answer = desk.draw(session, {**SCENE, "edits": [applied]}, False)
        assert "--directions" not in answer["command"]
        assert np.abs(drawn_by_edit(answer["command"], tmp_path) - pixels(answer)).max() <= 1

    (nets / "net-directions.npz").write_bytes(b"nothing")
    found, _ = begin(open_desk({"net": network}))
    assert found["directions"]["hair"] == []
    assert "Cannot read" in found["notice"]


def test_a_projected_photo_opens_with_the_network_that_was_tuned_for_it(open_desk, tmp_path, monkeypatch):
    G = generator()
    network, folder = save(G, tmp_path / "net.pkl"), tmp_path / "me"
    folder.mkdir()
    photo = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    PIL.Image.fromarray(photo).save(folder / "me.png")
    Placement.centered(str(folder / "me.png"), (40, 50), 32).save(folder / "placement.json")
    ws = G.mapping(torch.randn(1, 16), None)
    np.savez(folder / "projected_w.npz", w=ws.numpy())
    name = "synthesis.render.b32.to_rgb.bias"
    np.savez(folder / "tuned.npz", **{TUNED_DIGEST: network_digest(G), name: np.full(3, 0.25, np.float32)})

    source = Source(network, tuned=str(folder / "tuned.npz"))
    desk = open_desk({"net (tuned)": source, "net": network}, photo=folder)
    found, session = begin(desk)
    scene = {**SCENE, "seed": None, "latents": found["latents"]}
    answer = desk.draw(session, scene, False)
    expected = (G.synthesis(ws, noise_mode="const")[0] + 0.25).clamp(-1, 1).permute(1, 2, 0).numpy()
    assert np.abs(pixels(answer) - (expected + 1) * 127.5).max() <= 1.01
    edited = {**scene, "edits": [{"op": "swap", "region": "hair", "seed": 9, "part": "both"}]}
    answer = desk.draw(session, edited, False)
    assert f"--photo={folder}" in answer["command"]
    assert np.abs(drawn_by_edit(answer["command"], tmp_path) - pixels(answer)).max() <= 1
    blended = np.asarray(PIL.Image.open(io.BytesIO(desk.blended(session, {"scene": edited}))))
    assert (blended[0] == photo[0]).all()  # above the crop
    assert (blended == np.asarray(PIL.Image.open(tmp_path / "out" / "photo.png"))).all()
    assert begin(desk, "net")[0]["latents"] is None

    kept = desk.save_session(session, [scene])
    assert kept["photos"][found["latents"]]["data"] == base64.b64encode((folder / "me.png").read_bytes()).decode()
    _, other = begin(desk)
    restored = asyncio.run(desk.open_session(other, json.loads(json.dumps(kept))))["latents"][found["latents"]]
    assert f"--photo={folder}" in desk.draw(other, {**scene, "latents": restored}, False)["command"]
    changed = {"shape": [1, *ws.shape[1:]], "data": base64.b64encode((ws + 1).numpy().astype("<f4")).decode()}
    kept["latents"][found["latents"]] = changed
    restored = asyncio.run(desk.open_session(other, kept))["latents"][found["latents"]]
    assert f"--latents={restored}.npz" in desk.draw(other, {**scene, "latents": restored}, False)["command"]

    monkeypatch.setattr(module, "MAX_SESSION_FILE", len(json.dumps({"kept": kept})) - 1)
    with pytest.raises(UserError, match=r"session file would have .* MB"):
        desk.save_session(session, [scene])


def test_moves_measure_the_centre_of_a_region_once(open_desk, tmp_path, monkeypatch):
    desk = open_desk({"net": save(generator(), tmp_path / "net.pkl")})
    _, session = begin(desk)
    calls = []
    measure = edits.region_centers
    monkeypatch.setattr(edits, "region_centers", lambda *inputs: calls.append(1) or measure(*inputs))
    for step in range(5):
        moved = {"op": "transform", "region": "hair", "dx": step / 10, "dy": 0, "scale": 1.2, "rotate": 5}
        desk.draw(session, {**SCENE, "edits": [moved]}, False)
    assert len(calls) == 1
    assert len(session.centers) == 1


def test_twenty_sessions_keep_maps_of_a_few(open_desk, tmp_path):
    desk = open_desk({"net": save(generator(), tmp_path / "net.pkl")})
    opened = [begin(desk)[1] for _ in range(20)]
    for seed, session in enumerate(opened):
        desk.sessions.get(session.key)
        desk.draw(session, {**SCENE, "seed": seed}, False)
    desk.sessions.tidy()
    drawn = [session for session in opened if session.partial is not None]
    assert len(drawn) == limits.MAX_PARTIAL
    assert len({id(session.partial.renders) for session in drawn}) == 1
    first = pixels(desk.draw(opened[0], {**SCENE, "seed": 0}, False))
    assert (first == pixels(desk.draw(opened[-1], {**SCENE, "seed": 0}, False))).all()


def find_directions(desk, session, region):
    async def last_line():
        return [line async for line in desk.find_directions(session, region)][-1]

    return asyncio.run(last_line())


def test_a_network_leaves_memory_and_comes_back_with_the_directions_found_in_it(open_desk, tmp_path):
    names = ["a", "b", "c"]
    desk = open_desk({name: save(generator(), tmp_path / f"{name}.pkl") for name in names})
    _, session = begin(desk, "a")
    found = find_directions(desk, session, "hair")["names"]
    scene = {**SCENE, "edits": [{"op": "apply", "region": "hair", "name": found[-1], "strength": 2.0}]}
    before = desk.draw(session, scene, False)
    network = weakref.ref(desk.shelf.get("a").G)
    begin(desk, "b")
    begin(desk, "c")
    gc.collect()
    assert network() is None
    assert session.partial is None
    assert desk.draw(session, scene, False) == before
    again, _ = begin(desk, "a")
    assert again["searched"] == ["hair"]
    assert again["directions"]["hair"] == found
    assert begin(desk, "b")[0]["searched"] == []


def test_networks_are_read_beside_the_server_and_searches_beside_the_pictures(open_desk, tmp_path, monkeypatch):
    desk = open_desk({"net": save(generator(), tmp_path / "net.pkl")})
    _, session = begin(desk)
    threads = {"get": set(), "search": set()}

    def watched(kind, work):
        return lambda *inputs: threads[kind].add(threading.current_thread().name.partition("_")[0]) or work(*inputs)

    monkeypatch.setattr(desk.shelf, "get", watched("get", desk.shelf.get))
    monkeypatch.setattr(module, "SEARCHES", [(watched("search", work), part) for work, part in module.SEARCHES])
    find_directions(desk, session, "face")
    kept = {"latents": {}, "directions": {"hair": ["hair/x"]}}
    assert asyncio.run(desk.open_session(session, kept))["searched"] == ["face", "hair"]
    assert threads == {"get": {"pictures"}, "search": {"photos"}}
