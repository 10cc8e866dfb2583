"""Small data sets for dataset_tool.py, and what it makes of them."""

import io
import os

import numpy as np
import PIL.Image
from click.testing import CliRunner

import dataset_tool
from semantic.regions import CELEBAMASK
from semantic.sources.celebamask import PARTS


def run(*arguments, workers=1, **options):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return CliRunner().invoke(dataset_tool.main, [*arguments, *words, f"--workers={workers}"])


def make(dest, **options):
    result = run(dest=dest, **options)
    assert result.exit_code == 0, result.output
    return result.output


def refuse(message, dest, **options):
    result = run(dest=dest, **options)
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    line = result.output.split("Error: ")[-1].strip()
    assert message in line
    assert "\n" not in line
    assert not os.path.exists(dest) or os.path.isfile(dest)


def encoded(pixels, format="PNG", **options):
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path, **options)


def picture(side=16, seed=0, height=None):
    return np.random.default_rng(seed).integers(0, 256, [height or side, side, 3], np.uint8)


def mask(side=16, classes=3, seed=0, height=None):
    result = np.random.default_rng(seed).integers(0, classes, [height or side, side], np.uint8)
    result[0, 0] = classes - 1
    return result


def pairs(folder, count=3, **options):
    """Images and index masks in folders; gives both as lists of arrays."""
    images = [picture(seed=i, **options) for i in range(count)]
    masks = [mask(seed=i, **options) for i in range(count)]
    for i in range(count):
        save(folder / "images" / f"{i}.png", images[i])
        save(folder / "masks" / f"{i}.png", masks[i])
    return images, masks


def celebamask(folder, numbers=(0, 2, 27999, 28000)):
    """A small data set in the raw layout; gives the masks that it means."""
    expected = {}
    for i in numbers:
        save(folder / "CelebA-HQ-img" / f"{i}.jpg", picture(32, seed=i))
        expected[i] = np.zeros([16, 16], np.uint8)
        for order, (part, region) in enumerate(PARTS.items()):
            if (order + i) % 5 == 0:
                continue
            plane = np.random.default_rng([i, order]).random([16, 16]) < 0.15
            save(
                folder / "CelebAMask-HQ-mask-anno" / str(i // 2000) / f"{i:05d}_{part}.png",
                plane.astype(np.uint8) * 255,
            )
            expected[i][plane] = CELEBAMASK.index(region)
    return expected
