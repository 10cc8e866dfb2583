"""The published configurations: what each one trains with."""

import json

import pytest
from click.testing import CliRunner

import train
from dnnlib import UserError
from training.archive import create_archive, encode_png, image_name
from training.presets import stylegan2_options

# batch, at a time on a device, group of the minibatch deviation, channels at 4² resolution times 4, learning rate, R1,
# EMA kimg, EMA ramp-up, mapping layers, kimg
PUBLISHED = {
    "stylegan2": (32, 4, 4, 32768, 0.002, 10, 10, None, 8, 25000),
    "paper256": (64, 8, 8, 16384, 0.0025, 1, 20, None, 8, 25000),
    "paper512": (64, 8, 8, 32768, 0.0025, 0.5, 20, None, 8, 25000),
    "paper1024": (32, 4, 4, 32768, 0.002, 2, 10, None, 8, 25000),
    "cifar": (64, 32, 32, 32768, 0.0025, 0.01, 500, 0.05, 2, 100000),
}


def row(options):
    assert options.G_opt_kwargs == options.D_opt_kwargs
    assert options.G_opt_kwargs.class_name == "torch.optim.Adam"
    assert (options.G_opt_kwargs.betas, options.G_opt_kwargs.eps) == ([0, 0.99], 1e-8)
    base = options.G_kwargs.synthesis_kwargs["channel_base"]
    assert base == options.D_kwargs.channel_base
    assert options.G_kwargs.synthesis_kwargs["channel_max"] == options.D_kwargs.channel_max == 512
    return (
        options.batch_size,
        options.batch_gpu,
        options.D_kwargs.epilogue_kwargs["mbstd_group_size"],
        base,
        options.G_opt_kwargs.lr,
        options.loss_kwargs.r1_gamma,
        options.ema_kimg,
        options.ema_rampup,
        options.G_kwargs.mapping_kwargs["num_layers"],
        options.total_kimg,
    )


@pytest.mark.parametrize("cfg", PUBLISHED)
def test_published_configuration(cfg):
    assert row(stylegan2_options(cfg, 256, 1, "fp32")) == PUBLISHED[cfg]


@pytest.mark.parametrize(
    ("resolution", "processes", "batch", "base", "lrate", "gamma", "ema"),
    [
        (32, 1, 32, 16384, 0.0025, 0.0002 * 32**2 / 32, 10),
        (256, 1, 16, 16384, 0.0025, 0.0002 * 256**2 / 16, 5),
        (256, 4, 64, 16384, 0.0025, 0.0002 * 256**2 / 64, 20),
        (512, 2, 16, 32768, 0.0025, 0.0002 * 512**2 / 16, 5),
        (1024, 8, 32, 32768, 0.002, 0.0002 * 1024**2 / 32, 10),
        (1024, 1, 4, 32768, 0.002, 0.0002 * 1024**2 / 4, 1.25),
        (32, 128, 128, 16384, 0.0025, 0.0002 * 32**2 / 128, 40),
    ],
)
def test_auto_follows_resolution_and_processes(resolution, processes, batch, base, lrate, gamma, ema):
    options = stylegan2_options("auto", resolution, processes, "fp32")
    share = batch // processes
    expected = (batch, share, min(share, 4), base, lrate, pytest.approx(gamma), pytest.approx(ema), 0.05, 2, 25000)
    assert row(options) == expected


def test_cifar_does_without_path_length_mixing_and_residuals():
    options = stylegan2_options("cifar", 32, 1, "fp32")
    assert options.loss_kwargs.pl_weight == options.loss_kwargs.style_mixing_prob == 0
    assert options.D_kwargs.architecture == "orig"


def test_half_precision_runs_four_resolutions_and_clamps():
    for kwargs in (lambda o: o.G_kwargs.synthesis_kwargs, lambda o: o.D_kwargs):
        half = kwargs(stylegan2_options("auto", 256, 1, "fp16"))
        assert (half["num_fp16_res"], half["conv_clamp"]) == (4, 256)
        assert "num_fp16_res" not in kwargs(stylegan2_options("auto", 256, 1, "fp32"))
    assert stylegan2_options("auto", 256, 1, "bf16").loss_kwargs.precision == "bf16"


def test_unknown_configuration_is_told_in_one_line():
    with pytest.raises(UserError, match=r"Unknown configuration 'paper2048'\. Choose one of auto, stylegan2"):
        stylegan2_options("paper2048", 256, 1, "fp32")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight black images of 32²."""
    import numpy as np

    path = tmp_path_factory.mktemp("data") / "black.zip"
    with create_archive(path) as add:
        for i in range(8):
            add(image_name(i), encode_png(np.zeros([32, 32, 3], np.uint8)))
    return str(path)


def dry_run(images, tmp_path, *args):
    result = CliRunner().invoke(train.main, ["--dry-run", f"--data={images}", f"--outdir={tmp_path / 'runs'}", *args])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "runs").exists()
    return json.loads(result.stdout)


@pytest.mark.parametrize("cfg", [*PUBLISHED, "auto"])
def test_dry_run_prints_the_configuration_and_makes_nothing(cfg, images, tmp_path):
    options = dry_run(images, tmp_path, f"--cfg={cfg}", "--device=cpu")
    expected = stylegan2_options(cfg, 32, 1, "fp32")
    for key in ("batch_size", "batch_gpu", "ema_kimg", "ema_rampup", "total_kimg", "G_kwargs", "loss_kwargs"):
        assert options[key] == expected[key], key
    assert options["training_set_kwargs"]["class_name"] == "training.dataset.ImageFolderDataset"
    assert options["ada_target"] == 0.6


def test_options_of_the_user_win(images, tmp_path):
    options = dry_run(
        images, tmp_path, "--cfg=paper256", "--gamma=3", "--kimg=7", "--batch=12", "--snap=9", "--seed=5",
        "--augpipe=bg", "--target=0.7", "--workers=0", "--nobench=1", "--allow-tf32=1", "--freezed=3", "--cbase=256",
        "--tick=0.5", "--subset=4", "--mirror=1",
    )  # fmt: skip
    assert options["loss_kwargs"]["r1_gamma"] == 3
    assert (options["total_kimg"], options["kimg_per_tick"], options["seed"]) == (7, 0.5, 5)
    assert (options["batch_size"], options["batch_gpu"]) == (12, 12)
    assert options["network_snapshot_ticks"] == options["image_snapshot_ticks"] == 9
    assert options["ada_target"] == 0.7
    assert "brightness" not in options["augment_kwargs"]
    assert options["augment_kwargs"]["rotate"] == 1
    assert (options["cudnn_benchmark"], options["allow_tf32"]) == (False, True)
    assert options["data_loader_kwargs"] == {"num_workers": 0}
    assert options["D_kwargs"]["block_kwargs"]["freeze_layers"] == 3
    assert options["D_kwargs"]["channel_base"] == options["G_kwargs"]["synthesis_kwargs"]["channel_base"] == 256
    data = options["training_set_kwargs"]
    assert (data["max_size"], data["xflip"], data["random_seed"]) == (4, True, 5)


def test_augmentation_modes(images, tmp_path):
    assert "augment_kwargs" not in dry_run(images, tmp_path, "--aug=noaug")
    fixed = dry_run(images, tmp_path, "--aug=fixed", "--p=0.3")
    assert (fixed["augment_p"], fixed.get("ada_target")) == (0.3, None)
