"""The good things that cases damage: made once, by the tools themselves."""

import json
import zipfile
from pathlib import Path

import numpy as np
from click.testing import CliRunner

REGIONS = {"names": ["background", "skin", "hair"], "colors": [[0, 0, 0], [255, 0, 0], [0, 255, 0]], "transparent": []}
COUNT = 8
SIDE = 32
SMALL = ("--batch=4", "--cbase=32", "--workers=0", "--device=cpu", "--kimg=0.008", "--tick=0.004", "--snap=1")


def make_samples(folder: Path) -> Path:
    """Write the samples into `folder` and return it.

    pairs.zip is an archive of pairs with labels, run/ a run of plain StyleGAN2 on it with two states, and net.pkl,
    net.safetensors and latents.npz a compositional network and codes of it.
    """
    import legacy
    import train
    from semantic.generator import Generator
    from semantic.presets import semantic_options
    from semantic.regions import Regions

    with zipfile.ZipFile(folder / "pairs.zip", "w") as archive:
        for name, data in members().items():
            archive.writestr(name, data)
    args = [f"--outdir={folder / 'runs'}", f"--data={folder / 'pairs.zip'}", "--cfg=auto", "--cond=1", *SMALL]
    result = CliRunner(env={"OMP_NUM_THREADS": "1"}).invoke(train.main, args)
    assert result.exit_code == 0, result.output
    options = semantic_options(SIDE, Regions.from_dict(REGIONS), "fp32")
    kwargs = {key: value for key, value in options["G_kwargs"].items() if key != "class_name"}
    kwargs["synthesis_kwargs"] = {**kwargs["synthesis_kwargs"], "channel_base": 32}
    G = Generator(c_dim=0, img_resolution=SIDE, img_channels=3, **kwargs)
    networks = {"G": G, "D": None, "G_ema": G, "augment_pipe": None, "training_set_kwargs": None}
    legacy.save_network(networks, folder / "net.pkl")
    result = CliRunner().invoke(legacy.main, [f"--source={folder / 'net.pkl'}", f"--dest={folder / 'net.safetensors'}"])
    assert result.exit_code == 0, result.output
    np.savez(folder / "latents.npz", w=np.zeros([1, G.num_ws, G.w_dim], np.float32))
    return folder


def members() -> dict[str, bytes]:
    """The files of a good archive."""
    from training.archive import encode_png, image_name

    random = np.random.default_rng(0)
    files, labels = {}, []
    for i in range(COUNT):
        files[image_name(i)] = encode_png(random.integers(0, 256, [SIDE, SIDE, 3], np.uint8))
        files[f"masks/{image_name(i)}"] = encode_png(random.integers(0, 3, [SIDE, SIDE], np.uint8), 1)
        labels.append([image_name(i), i % 2])
    files["dataset.json"] = json.dumps({"labels": labels, "regions": REGIONS}).encode()
    return files
