"""Hostile network files, codes and training states."""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import torch

from tests.torture.damage import STRANGE_NUMBERS, STRANGE_TEXTS, damage, damage_json, strange_value


def strange_network(folder: Path, random: Random, samples: Path) -> Path:
    """Write one hostile network file into `folder`, and give its path."""
    kind = random.randrange(10)
    path = folder / random.choice(("net.pkl", "net.safetensors", "net.pt", "net"))
    good = samples / random.choice(("net.pkl", "net.safetensors"))
    if kind < 4:
        path.write_bytes(damage(good.read_bytes(), random))
    elif kind < 6:
        path.write_bytes(_damaged_start(good.read_bytes(), random))
    elif kind == 6:
        path.write_bytes(_other_header((samples / "net.safetensors").read_bytes(), random))
    elif kind == 7:
        path.write_bytes(_published(random))
    elif kind == 8:
        path.write_bytes(_other_file(random, samples))
    else:
        path.write_bytes(damage(next(samples.glob("runs/*/training-state-*.pt")).read_bytes(), random))
    return path


def _damaged_start(data: bytes, random: Random) -> bytes:
    """Damage where names, classes and sizes stand, instead of among millions of numbers."""
    place = random.choice((64, 512, 4096))
    return damage(data[:place], random) + data[place:]


def _other_header(data: bytes, random: Random) -> bytes:
    """A .safetensors file whose header says something strange."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    networks = json.loads(header["__metadata__"]["networks"])
    if random.random() < 0.7:
        networks["G_ema"] = damage_json(networks["G_ema"], random)
        header["__metadata__"]["networks"] = json.dumps(networks)
    else:
        header = damage_json(header, random)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _published(random: Random) -> bytes:
    """A checkpoint in the shape of SemanticStyleGAN's, of strange arguments."""
    import argparse

    args = {"size": 32, "latent": 8, "n_mlp": 2, "seg_dim": 3, "channel_multiplier": 1, "coarse_size": 16,
            "coarse_channel": 8, "local_channel": 4, "local_layers": 10, "base_layers": 2, "depth_layers": 6,
            "min_feat_size": 8}  # fmt: skip
    key = random.choice(list(args))
    args[key] = random.choice((*STRANGE_NUMBERS, None, "large", float("nan"), []))
    buffer = io.BytesIO()
    torch.save({"g_ema": {"style.1.weight": torch.zeros(4, 4)}, "args": argparse.Namespace(**args)}, buffer)
    return damage(buffer.getvalue(), random) if random.random() < 0.3 else buffer.getvalue()


def _other_file(random: Random, samples: Path) -> bytes:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(300 << 20))
    return random.choice(
        (
            b"",
            b"\x80",
            b"PK\x03\x04",
            b"<html>",
            (samples / "pairs.zip").read_bytes(),
            (samples / "latents.npz").read_bytes(),
            pickle.dumps({"G_ema": random.choice(STRANGE_TEXTS[:5]), "G": None, "D": None}),
            pickle.dumps({"G_ema": None, "G": None, "D": strange_value(Random(1))}),
            pickle.dumps([[]] * 1000),
            bomb.getvalue(),
        )
    )


def strange_latents(folder: Path, random: Random, samples: Path) -> Path:
    """Write a hostile .npz into `folder`, and give its path."""
    path = folder / "latents.npz"
    whole = (samples / "latents.npz").read_bytes()
    kind = random.randrange(4)
    if kind == 0:
        path.write_bytes(damage(whole, random))
    elif kind == 1:
        shape = random.choice(([0, 8, 512], [1, 8, 3], [1], [], [2, 8, 512, 1]))
        dtype = random.choice((np.float64, np.int8, "U5", np.complex64, bool))
        np.savez(path, w=np.zeros(shape).astype(dtype))
    elif kind == 2:
        np.savez(path, **{random.choice(("v", "w", "W")): np.full([1, 8, 512], np.nan)})
    else:
        shape = random.choice(((10**12, 8, 512), (300_000, 8, 512), (2**63, 8, 512), (-1, 8, 512)))
        header = str({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
            archive.writestr("w.npy", array + bytes(random.choice((0, 300 << 20))))
    return path


def strange_run(out: Path, random: Random, samples: Path) -> Path:
    """Copy the sample run to `out`, damage what a resumed run reads, and give its folder."""
    (source,) = (samples / "runs").iterdir()
    run_dir = out / source.name
    shutil.copytree(source, run_dir)
    state = max(run_dir.glob("training-state-*.pt"))
    options = run_dir / "training_options.json"
    kind = random.randrange(10)
    if kind < 4:
        state.write_bytes(damage(state.read_bytes(), random))
    elif kind == 4:
        state.write_bytes(random.choice((b"", b"PK", next(run_dir.glob("*.pkl")).read_bytes(), pickle.dumps({}))))
    elif kind == 5:
        torch.save(_other_state(state, random), state)
    elif kind == 6:
        text = options.read_bytes()
        options.write_bytes(random.choice((damage(text, random), b"", b"[]", b"null", b'{"total_kimg": 1}')))
    elif kind == 7:
        options.write_text(json.dumps(damage_json(json.loads(options.read_text()), random)))
    elif kind == 8:
        _add_strange_files(run_dir, random)
    else:
        for path in run_dir.glob("stats.jsonl"):
            path.write_bytes(damage(path.read_bytes(), random))
    return run_dir


def _other_state(path: Path, random: Random) -> dict:
    """A state that reads back but holds something else."""
    state = torch.load(path, weights_only=True)
    part = state[random.choice(list(state))]
    target = part if isinstance(part, dict) and part else state
    key = random.choice(list(target))
    if random.random() < 0.3:
        del target[key]
    else:
        target[key] = random.choice((None, -1, "text", [], {}, torch.zeros(3), float("nan"), 10**30))
    return state


def _add_strange_files(run_dir: Path, random: Random) -> None:
    newest = run_dir / "training-state-999999.pt"
    action = random.randrange(5)
    if action == 0:
        newest.mkdir()
    elif action == 1:
        newest.symlink_to("/nowhere")
    elif action == 2:
        newest.write_bytes(b"")
    elif action == 3:
        (run_dir.parent / "99999-empty").mkdir()
        (run_dir.parent / "99999-empty" / "training-state-000000.pt").write_bytes(b"x")
    else:
        os.truncate(max(run_dir.glob("training-state-*.pt")), 1000)
        newest.write_bytes(random.randbytes(10_000))
