import asyncio
import base64
import gc
import io
import json
import zlib
from typing import ClassVar

import numpy as np
import PIL.Image
import pytest
import torch

pytest.importorskip("fastapi", reason="the extra web is not installed")
from fastapi.testclient import TestClient

from semantic.browser import photos, server
from semantic.browser.server import create_app
from tests.semantic.browser.drawn import drawn_photo, huge_png

SCENE = {"seed": 3, "latents": None, "psi": 0.7, "edits": []}


@pytest.fixture
def client(desk):
    with TestClient(create_app(desk, ("localhost",)), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def opened(client):
    answer = client.post("/api/session", json={"network": None}).json()
    client.headers["X-Session"] = answer["session"]
    return answer


def view(client, scene=SCENE, turn=1, **more):
    body = json.dumps({"scene": scene, "turn": turn, **more})
    return client.post("/api/view", content=body, headers={"Content-Type": "application/json"})


def pixels(text):
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(text))))


def test_the_page_comes_with_strict_headers_and_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "style=" not in page.text
    assert "onclick" not in page.text
    assert "://" not in page.text
    for name in server.FILES:
        found = client.get(f"/static/{name}")
        assert found.status_code == 200
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cache-control"] == "no-store"
        kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[name.rpartition(".")[2]]
        assert found.headers["content-type"].partition(";")[0] == kind
    assert {*server.FILES, "index.html", "report.css", "report.js"} == {path.name for path in server.STATIC.iterdir()}
    for name in ("index.html", "../server.py", "..%2fserver.py", "%2e%2e/%2e%2e/generator.py", "report.js"):
        assert client.get(f"/static/{name}").status_code == 404


def test_a_scene_is_drawn_as_the_network_draws_it(client, opened, bundled, desk):
    answer = view(client).json()
    G = bundled["G_ema"]
    ws = desk.shelf.get("faces").codes(3, 0.7)
    with torch.no_grad():
        out = G.synthesis(ws, noise_mode="const", return_mask=True)
    image = ((out.image[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().numpy()
    assert np.abs(pixels(answer["image"]).astype(float) - image).max() <= 1
    mask = np.frombuffer(zlib.decompress(base64.b64decode(answer["mask"])), np.uint8).reshape(64, 64)
    assert (mask == out.mask[0].argmax(0).numpy()).mean() > 0.999
    assert answer["command"] == "python edit.py --network=faces --seeds=3 --trunc=0.7 --outdir=out"


def test_the_same_scene_gives_the_same_bytes_whatever_was_drawn_in_between(client, opened):
    first = view(client).json()
    edits = [
        {"op": "swap", "region": "hair", "seed": 8, "part": "texture"},
        {"op": "transform", "region": "mouth", "dx": 0.1, "dy": 0, "scale": 1.2, "rotate": 5},
        {"op": "drop", "region": "glasses"},
        {"op": "psi", "region": "nose", "psi": 0.5},
    ]
    edited = view(client, {**SCENE, "edits": edits}, 2).json()
    assert edited["image"] != first["image"]
    for option in ("--swap=hair:8:texture", "--transform=mouth:dx=0.1", "--drop=glasses", "--psi=nose:0.5"):
        assert option in edited["command"]
    assert view(client, SCENE, 3).json() == first


def test_sessions_do_not_see_each_other(client, opened):
    kept = {"latents": {"mine": packed(torch.zeros(1, 28, 256))}, "directions": {}}
    name = client.post("/api/session/open", json={"kept": kept}).json()["latents"]["mine"]
    scene = {"seed": None, "latents": name, "psi": 0.7, "edits": []}
    assert view(client, scene).status_code == 200
    client.headers["X-Session"] = client.post("/api/session", json={"network": None}).json()["session"]
    assert view(client, scene).status_code == 400


def packed(codes):
    return {"shape": list(codes.shape), "data": base64.b64encode(codes.numpy().astype("<f4").tobytes()).decode()}


def test_latents_travel_through_a_session_file_without_a_changed_bit(client, opened, desk):
    codes = torch.randn(1, 28, 256, generator=torch.Generator().manual_seed(0))
    session = desk.sessions.get(opened["session"])
    name = session.keep(codes)
    scene = {"seed": None, "latents": name, "psi": 0.7, "edits": []}
    kept = client.post("/api/session/save", json={"scenes": [scene]}).json()
    again = client.post("/api/session/open", json={"kept": json.loads(json.dumps(kept))}).json()
    assert torch.equal(session.latents[again["latents"][name]], codes)


@pytest.mark.parametrize(
    "scene",
    [
        None,
        {"seed": 1},
        {**SCENE, "seed": -1},
        {**SCENE, "seed": True},
        {**SCENE, "psi": float("1e9")},
        {**SCENE, "psi": 10**400},
        {**SCENE, "edits": [{"op": "swap", "region": "\ud800", "seed": 1, "part": "both"}]},
        {**SCENE, "edits": [{"op": "swap", "region": "²", "seed": 1, "part": "both"}]},
        {**SCENE, "edits": [{"op": "swap", "region": "tail", "seed": 1, "part": "both"}]},
        {**SCENE, "edits": [{"op": "swap", "region": "hair", "seed": "/etc/passwd", "part": "both"}]},
        {**SCENE, "edits": [{"op": "swap", "region": "hair", "latents": "/etc/passwd", "part": "both"}]},
        {**SCENE, "edits": [{"op": "apply", "region": "hair", "name": "hair/x", "strength": 1}]},
        {**SCENE, "edits": [{"op": "transform", "region": "hair", "dx": 0, "dy": 0, "scale": 0, "rotate": 0}]},
        {**SCENE, "edits": [{"op": "drop", "region": "hair"}] * 1000},
        {**SCENE, "edits": [7]},
        {"seed": None, "latents": "../../x", "psi": 1, "edits": []},
    ],
)
def test_wrong_scenes_are_refused_in_words(client, opened, scene):
    answer = view(client, scene)
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(".")
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"latents": {"a": {"shape": [float("inf")], "data": ""}}},
        {"latents": {"a": {"shape": [1, 28, 256], "data": "AAAA"}}},
        {"latents": {}, "directions": {"hair": [[1]]}},
        {"latents": {}, "directions": [1]},
    ],
)
def test_damaged_session_files_are_refused_in_words(client, opened, kept):
    headers = {"Content-Type": "application/json"}
    answer = client.post("/api/session/open", content=json.dumps({"kept": kept}), headers=headers)
    assert answer.status_code == 400
    assert "session file is damaged" in answer.json()["error"]


@pytest.mark.parametrize("headers", [{"Host": "["}, {"Origin": "http://["}, {"Origin": "http://[x]:y"}])
def test_headers_without_meaning_are_refused_in_words(client, headers):
    answer = client.post("/api/session", json={"network": None}, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"].endswith(".")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_unexpected_errors_are_told_in_words_with_all_headers(desk, monkeypatch):
    monkeypatch.setattr(desk, "begin", lambda *args: 1 / 0)
    app = create_app(desk, ("localhost",))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        answer = client.post("/api/session", json={"network": None})
    assert answer.status_code == 500
    assert "unexpected error" in answer.json()["error"]
    assert {name.lower() for name in server.HEADERS} <= set(answer.headers)


def test_requests_of_other_sites_hosts_and_forms_are_refused(client, opened):
    body = {"scene": SCENE, "turn": 1}
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
        assert client.post("/api/view", json=body, headers=headers).status_code == 403
    assert client.post("/api/view", json=body, headers={"Origin": "http://localhost"}).status_code == 200
    form = client.post("/api/view", content=json.dumps(body), headers={"Content-Type": "text/plain"})
    assert form.status_code == 400
    assert client.post("/api/view", json=body, headers={"X-Session": "guess"}).status_code == 400


def test_networks_are_opened_by_name_alone(client):
    for name in ("/etc/passwd", "faces.pkl", "../faces", "", 7, {"a": 1}):
        answer = client.post("/api/session", json={"network": name})
        assert answer.status_code == 400
        assert "no network" in answer.json()["error"]
    assert client.post("/api/session", json={"network": "others"}).json()["networks"] == ["faces", "others"]


def test_bodies_beyond_the_limit_are_not_read(client, opened):
    huge = client.post("/api/photo", content=b"x" * (server.MAX_UPLOAD + 1))
    assert huge.status_code == 413
    assert "MB at most" in huge.json()["error"]

    assert client.post("/api/view", json={"scene": SCENE, "turn": 1, "more": "x" * (2 << 20)}).status_code == 413


def test_a_body_without_an_end_is_read_up_to_the_limit():
    class Endless:
        headers: ClassVar = {}
        parts = 0

        async def stream(self):
            while True:
                self.parts += 1
                yield bytes(1000)

    request = Endless()
    with pytest.raises(server.TooLarge):
        asyncio.run(server.read(request, 10_000, "A photo"))
    assert request.parts == 11


def test_overtaken_requests_are_dropped(client, opened):
    assert view(client, turn=5).status_code == 200
    assert view(client, turn=4).status_code == 409


def test_a_photo_that_nobody_waits_for_stops_without_a_word(desk, opened, caplog):
    session = desk.sessions.get(opened["session"])

    async def open_and_leave():
        found = desk.open_photo(session, drawn_photo(desk)[0])
        await anext(found)
        await found.aclose()
        await desk.workshop.run_long(lambda: None)  # begins when the photo has stopped
        await asyncio.sleep(0.1)
        gc.collect()

    asyncio.run(open_and_leave())
    assert [entry.getMessage() for entry in caplog.records if entry.name == "asyncio"] == []


def test_directions_are_found_once_and_serve_all_sessions(client, opened, desk):
    answer = client.post("/api/directions", json={"region": "hair"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    names = lines[-1]["names"]
    assert len(names) >= 4
    assert all(name.startswith("hair/") for name in names)
    edit = {"op": "apply", "region": "hair", "name": names[-1], "strength": 2}
    changed = view(client, {**SCENE, "edits": [edit]}, 2).json()
    assert changed["image"] != view(client, SCENE, 3).json()["image"]
    assert f"--directions=directions.npz --apply={names[-1]}:2" in changed["command"]
    assert client.post("/api/session", json={"network": None}).json()["directions"]["hair"] == names
    stored = np.load(io.BytesIO(client.post("/api/directions/file", json={}).content))
    assert set(names) <= set(stored["names"].tolist())


def test_files_hold_what_the_page_shows(client, opened):
    scene = {**SCENE, "edits": [{"op": "drop", "region": "hair"}]}
    answer = view(client, scene).json()
    mask = np.frombuffer(zlib.decompress(base64.b64decode(answer["mask"])), np.uint8).reshape(64, 64)
    colors = np.array([region["color"] for region in opened["regions"]])
    painted = np.asarray(PIL.Image.open(io.BytesIO(client.post("/api/mask", json={"scene": scene}).content)))
    assert (painted == colors[mask]).all(axis=2).mean() > 0.999
    stored = np.load(io.BytesIO(client.post("/api/latents", json={"scene": scene}).content))
    assert stored["w"].shape == (1, 28, 256)
    assert stored["edits"].tolist() == ["--drop=hair"]


def test_small_pictures_of_seeds(client, opened):
    found = client.post("/api/faces", json={"seeds": [1, 2], "psi": 0.7}).json()["images"]
    assert [pixels(image).shape for image in found] == [(64, 64, 3)] * 2
    for seeds in ([], [1] * 50, "1", [1.5]):
        assert client.post("/api/faces", json={"seeds": seeds, "psi": 0.7}).status_code == 400


def test_a_photo_is_found_edited_and_blended_and_stays_its_own_elsewhere(client, opened, desk, monkeypatch):
    monkeypatch.setattr(photos, "STEPS", 10)
    data, pixels_of_photo = drawn_photo(desk)
    lines = [json.loads(line) for line in client.post("/api/photo", content=data).text.splitlines()]
    assert [line for line in lines if "error" in line] == []
    stages = [line["stage"].partition(":")[0] for line in lines if "stage" in line]
    assert stages[0] == "Reading the photo"
    assert stages[-1].startswith("Searching codes")
    assert sum("image" in line for line in lines) >= 3
    scene = {"seed": None, "latents": lines[-1]["latents"], "psi": 0.7, "edits": []}
    edited = {**scene, "edits": [{"op": "swap", "region": "hair", "seed": 100, "part": "texture"}]}
    answer = view(client, edited).json()
    assert f"--latents={scene['latents']}.npz" in answer["command"]
    blend = client.post("/api/blend", json={"scene": edited})
    found = np.asarray(PIL.Image.open(io.BytesIO(blend.content)))
    same = (found == pixels_of_photo).all(axis=2)
    assert found.shape == pixels_of_photo.shape
    assert 0.3 < same.mean() < 0.999
    untouched = client.post("/api/blend", json={"scene": scene})
    assert (np.asarray(PIL.Image.open(io.BytesIO(untouched.content))) == pixels_of_photo).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"just text", "not a PNG"), (b"", "not a PNG"), (huge_png(), "more than"), (b"\x89PNG\r\n\x1a\n", "Cannot read")],
)
def test_what_is_no_photo_is_refused_in_words(client, opened, data, reason):
    lines = [json.loads(line) for line in client.post("/api/photo", content=data).text.splitlines()]
    assert reason in lines[-1]["error"]
    assert "Traceback" not in lines[-1]["error"]
    scene = {"seed": 1, "latents": None, "psi": 0.7, "edits": []}
    assert "no photo" in client.post("/api/blend", json={"scene": scene}).json()["error"]
