"""Hostile archives: zips damaged as bytes, and zips and folders with contents that no tool writes."""

import bz2
import functools
import io
import json
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.torture.damage import STRANGE_NUMBERS, STRANGE_TEXTS, damage, damage_json, damage_tail
from tests.torture.pictures import strange_picture
from tests.torture.samples import members

Files = list[tuple[zipfile.ZipInfo, bytes]]
ESCAPES = (
    "../escaped.png", "../../../escaped.png", "00000/../../../../escaped.png", "/escaped.png", "\\..\\..\\escaped.png",
    "C:\\escaped.png", "C:/escaped.png", "masks/../../escaped.png", "..", "./.././../escaped.png", "//host/escaped.png",
)  # fmt: skip


def write_zip(path: Path, files: Files) -> None:
    """A zip of any names and contents, repeated ones included."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for info, data in files:
            archive.writestr(info, data)


def entry(name: str, data: bytes, method: int = zipfile.ZIP_STORED) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.compress_type = method
    return info, data


def good_files() -> Files:
    return [entry(name, data) for name, data in members().items()]


def _pick(files: Files, random: Random) -> int:
    """The place of a file, the first image more often than others."""
    return random.choice((0, 1, len(files) - 1, random.randrange(len(files))))


def missing(files: Files, random: Random) -> Files:
    """Some files are gone, or all of a kind."""
    if random.random() < 0.3:
        kind = random.choice(("masks/", "00000/", "dataset.json"))
        return [file for file in files if not file[0].filename.startswith(kind)]
    gone = set(random.sample(range(len(files)), random.randint(1, len(files))))
    return [file for i, file in enumerate(files) if i not in gone]


def escaping(files: Files, random: Random) -> Files:
    """A name leads out of the archive."""
    name = random.choice(ESCAPES)
    return [*files, entry(name, files[0][1])] if random.random() < 0.5 else renamed(files, random, name)


def renamed(files: Files, random: Random, name: str | None = None) -> Files:
    """A file has another name: strange, very long, hidden, of other case or with signs that a terminal obeys."""
    place = _pick(files, random)
    old = files[place][0].filename
    strange = [text for text in STRANGE_TEXTS if "\ud800" not in text and len(text) < 60_000]
    names = (random.choice(strange) + ".png", old.upper(), "." + old, old + "/", "a/" * 5000 + "x.png", old + "\nx.png",
             "x" * 65_000 + ".png", "\x1b[2J.png", "\u202egnp.png", old.replace("/", "\\"))  # fmt: skip
    changed = list(files)
    changed[place] = entry(name or random.choice(names), files[place][1])
    return changed


def repeated(files: Files, random: Random) -> Files:
    """One name stands for two different files."""
    place = _pick(files, random)
    other = files[random.randrange(len(files))][1]
    return [*files, entry(files[place][0].filename, random.choice((other, b"", files[place][1])))]


def linked(files: Files, random: Random) -> Files:
    """A file is a symbolic link."""
    place = _pick(files, random)
    info, _ = entry(files[place][0].filename, b"")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    changed = list(files)
    changed[place] = info, random.choice((b"/etc/passwd", b"../../../escaped.png", b"00000", info.filename.encode()))
    return changed


def replaced(files: Files, random: Random) -> Files:
    """A file holds something else: nothing, noise, a damaged or strange picture, another format."""
    place = _pick(files, random)
    info, data = files[place]
    contents = (
        lambda: b"",
        lambda: random.randbytes(1000),
        lambda: damage(data, random),
        lambda: damage(data, random),
        lambda: files[random.randrange(len(files))][1],
        lambda: b"GIF89a" + bytes(100),
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(100),
        lambda: b"<svg/>",
        lambda: strange_picture(random),
        lambda: strange_picture(random),
    )
    changed = list(files)
    changed[place] = entry(info.filename, random.choice(contents)())
    return changed


def described(files: Files, random: Random) -> Files:
    """dataset.json says something strange."""
    data = json.loads(members()["dataset.json"])
    for _ in range(random.choice((1, 1, 3))):
        data = damage_json(data, random)
    if isinstance(data, dict) and random.random() < 0.3:
        labels = [[info.filename, random.choice((*STRANGE_NUMBERS, float("nan"), 1.5))] for info, _ in files]
        data["labels"] = random.choice((labels, [[name, [value, 0.5]] for name, value in labels]))
    text = json.dumps(data).encode()
    if random.random() < 0.3:
        text = damage(text, random)
    return [file for file in files if file[0].filename != "dataset.json"] + [entry("dataset.json", text)]


def bomb(files: Files, random: Random) -> Files:
    """A small file unpacks to hundreds of megabytes."""
    place = random.choice((0, 1, len(files) - 1))
    name = files[place][0].filename
    method = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    size = random.choice((200 << 20, 600 << 20)) if method == zipfile.ZIP_DEFLATED else 30 << 20
    start = files[place][1][:-1] if place < 2 else b""
    filler = random.choice((b"\0", b"[],", b"[", b'{"a":', b" ", b'"\\u1234",'))
    data = start + (filler if place > 1 else b"\0") * (size // len(filler))
    changed = list(files)
    changed[place] = entry(name, data[:size], method)
    changed[place][0]._compresslevel = 1
    return changed


def crowded(files: Files, random: Random) -> Files:
    """Very many empty files, or folders in folders."""
    count = random.choice((1000, 20_000))
    return files + [entry(f"{'d/' * random.randint(0, 20)}{i}.png", b"") for i in range(count)]


CONTENTS: tuple[Callable[[Files, Random], Files], ...] = (
    missing, escaping, escaping, renamed, renamed, repeated, linked, replaced, replaced, replaced, described, described,
    described, crowded,
)  # fmt: skip


def lying_sizes(data: bytes, random: Random) -> bytes:
    """The zip's directory tells other sizes, methods or flags than its members have."""
    damaged = bytearray(data)
    entries = [i for i in range(len(data) - 46) if data[i : i + 4] == b"PK\x01\x02"]
    offset, layout = random.choice(((20, "<I"), (24, "<I"), (24, "<I"), (10, "<H"), (8, "<H"), (42, "<I"), (16, "<I")))
    number = random.choice(STRANGE_NUMBERS) & (1 << 8 * struct.calcsize(layout)) - 1
    for start in random.sample(entries, random.choice((1, len(entries)))):
        struct.pack_into(layout, damaged, start + offset, number)
    return bytes(damaged)


@functools.cache
def _packed_zeros(method: int) -> bytes:
    """A member that unpacks to a gigabyte and a half of zeros (bzip2: less, it packs slowly), as it stands in a zip."""
    if method == zipfile.ZIP_BZIP2:
        return bz2.compress(bytes(256 << 20), 1)
    packer = zlib.compressobj(1, wbits=-15)
    part = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # parts that stand alone, so repeat them
    return part * 96 + packer.flush()


def understated_bomb(random: Random) -> bytes:
    """A zip whose directory tells a small size for a member that unpacks to a gigabyte and a half."""
    files = good_files()
    place = random.choice((0, len(files) - 1))
    method = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    packed = _packed_zeros(method)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, (info, data) in enumerate(files):
            archive.writestr(info, packed if i == place else data)
    data = bytearray(buffer.getvalue())
    start = -1
    for _ in range(place + 1):
        start = data.index(b"PK\x01\x02", start + 1)
    struct.pack_into("<H", data, start + 10, method)
    struct.pack_into("<I", data, start + 24, 1000)
    return bytes(data)


def write_folder(path: Path, files: Files, random: Random) -> None:
    """The same as a folder, with what only a folder can have: pipes, devices, links in circles, closed files."""
    for info, data in files:
        target = path / info.filename
        if info.filename.endswith("/") or not target.resolve().is_relative_to(path.resolve()):
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        except (OSError, ValueError):
            continue
    special = path / random.choice(("00000/img00000000.png", "masks/00000/img00000003.png", "dataset.json", "b/a.png"))
    special.parent.mkdir(parents=True, exist_ok=True)
    action = random.randrange(7)
    if action and special.is_file():
        special.unlink()
    if action == 1:
        os.mkfifo(special)
    elif action == 2:
        special.symlink_to("/dev/zero")
    elif action == 3:
        special.symlink_to(special)
    elif action == 4:
        special.symlink_to("/nowhere/at/all")
    elif action == 5:
        special.mkdir()
    elif action == 6:
        special.parent.joinpath("circle").symlink_to(path, target_is_directory=True)


def strange_archive(folder: Path, random: Random, samples: Path) -> Path:
    """Write one hostile archive into `folder`, and give its path."""
    kind = random.randrange(20)
    path = folder / "data.zip"
    if kind < 6:
        whole = (samples / "pairs.zip").read_bytes()
        changes = (damage, damage, damage_tail, damage_tail, lying_sizes)
        path.write_bytes(random.choice(changes)(whole, random))
        return path
    if kind == 6:
        path.write_bytes(understated_bomb(random))
        return path
    files = bomb(good_files(), random) if kind == 7 else random.choice(CONTENTS)(good_files(), random)
    if kind < 17:
        write_zip(path, files)
    else:
        path = folder / "data"
        path.mkdir()
        write_folder(path, files, random)
    return path
