"""train_encoder.py: its file, Ctrl-C, and its one-line errors; projector.py that starts with the encoder."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import legacy
import projector
import train_encoder
from semantic.encoder import load_encoder
from semantic.inversion import encoder_training
from semantic.inversion.encoder_training import Trainer
from tests.networks import tiny_generator
from tests.semantic.helpers import build_discriminator
from training.networks import Generator

QUICK = ("--pairs=100", "--kimg=0.016", "--batch=8", "--passes=2", "--rank=4", "--device=cpu", "--precision=bf16")


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_training, "JUDGED", 8)
    monkeypatch.setattr(projector, "CODES", 100)
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    G, D = tiny_generator(), build_discriminator(count=4, segmentation=True)
    legacy.save_network({"G": None, "D": D, "G_ema": G, "augment_pipe": None}, tmp_path / "net.pkl")
    return tmp_path / "net.pkl"


def run(command, *args):
    result = CliRunner().invoke(command.main, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_projector_starts_with_the_encoder_that_was_written_beside_the_network(network, tmp_path):
    photo, dest = tmp_path / "photo.png", tmp_path / "net-encoder.pkl"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, [40, 40, 3], np.uint8)).save(photo)
    common = (f"--network={network}", f"--target={photo}", "--mask=none", "--align=none", "--num-steps=1")
    failed = run(projector, *common, f"--outdir={tmp_path / 'none'}", "--init=encoder")
    assert failed.exit_code == 1
    assert "There is no encoder for" in failed.output
    result = run(train_encoder, f"--network={network}", f"--dest={dest}", *QUICK)
    assert result.exit_code == 0, result.output
    assert "Wrote" in result.output
    found = {}
    for name, options in {"beside": (), "mean": ("--init=mean",), "named": (f"--encoder={dest}",)}.items():
        out = tmp_path / name
        result = run(projector, *common, f"--outdir={out}", *options)
        assert result.exit_code == 0, result.output
        assert ("Start: the mean" in result.output) == (name == "mean")
        assert json.loads((out / "projections.json").read_text())[0]["psnr"] > 0
        with np.load(out / "projected_w.npz") as arrays:
            found[name] = arrays["w"]
    assert np.allclose(found["beside"], found["named"])
    assert not np.allclose(found["beside"], found["mean"])


def test_ctrl_c_keeps_what_was_learned(network, tmp_path, monkeypatch):
    descend = Trainer.descend

    def stopped(self, step, *args):
        if step is not self.encoder.passes[0]:
            raise KeyboardInterrupt
        descend(self, step, *args)

    monkeypatch.setattr(Trainer, "descend", stopped)
    dest = tmp_path / "net-encoder.pkl"
    result = run(train_encoder, f"--network={network}", f"--dest={dest}", *QUICK)
    assert result.exit_code == 130
    assert "holds 2 of 2 passes" in result.output
    assert load_encoder(dest, legacy.load_network(network).G_ema) is not None


def test_mistakes_end_in_one_line(network, tmp_path):
    torch.manual_seed(0)
    plain = Generator(4, 0, 4, 32, 3, synthesis_kwargs={"channel_base": 64, "channel_max": 4})
    legacy.save_network({"G": plain, "D": None, "G_ema": plain}, tmp_path / "plain.pkl")
    for name, dest, message in [
        ("plain.pkl", "x.pkl", "has no regions to encode"),
        ("net.pkl", "x.npz", "Choose a name that ends in .pkl"),
        ("missing.pkl", "x.pkl", "There is no file"),
    ]:
        result = run(train_encoder, f"--network={tmp_path / name}", f"--dest={tmp_path / dest}", *QUICK)
        assert result.exit_code == 1
        assert message in result.output
        assert not (tmp_path / dest).exists()
