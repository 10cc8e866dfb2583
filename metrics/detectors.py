"""Feature networks: finding or downloading them, and calling them.

They are TorchScript programs. Loading a program runs no Python, but the program decides what it computes. Use files
only from sources that you trust.
"""

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from dnnlib import UserError, open_url
from dnnlib.cache import cached_path, find_kept
from dnnlib.util import is_url
from metrics.options import MetricOptions
from torch_utils import distributed

ADDRESS = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics"
INCEPTION = "inception-2015-12-05.pt"
VGG16 = "vgg16.pt"

_unreachable: set[str] = set()


class DetectorMissing(UserError):
    """A metric needs a feature network that neither exists locally nor can be downloaded."""


class Detector:
    """A feature network.

    Attributes:
        digest: checksum of its file, for keys of the cache.

    Args:
        path: TorchScript file.
        device: device of the network.

    Raises:
        UserError: the file is not TorchScript.
    """

    def __init__(self, path: str | os.PathLike, device: torch.device):
        try:
            with open(path, "rb") as file:
                self.digest = _digest(file)
            self._network = torch.jit.load(os.fspath(path), map_location=device).eval()
        except OSError as error:
            raise UserError(f"Cannot read the feature network {path}: {error.strerror or error}.") from error
        except RuntimeError as error:
            raise UserError(f"{path} is not a feature network. Expected a TorchScript file.") from error
        arguments = self._network.forward.schema.arguments
        self._known = {argument.name for argument in arguments}
        self._device = device

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        """Returns features [N, F] of images [N, 3, H, W] in 0..255. Ignores options that the network lacks."""
        return self.features(images, **options)

    def features(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        """Returns the result of a call, but differentiable."""
        known = {name: value for name, value in options.items() if name in self._known}
        return self._network(images.to(self._device), **known).float().flatten(1)


def get_feature_detector_name(url: str) -> str:
    """Returns the file name of a feature network without folder and suffix."""
    return Path(url.rpartition("/")[2]).stem


def get_feature_detector(
    url: str, device: torch.device | str = "cpu", num_gpus: int = 1, rank: int = 0, verbose: bool = False
) -> Detector:
    """Returns the feature network at a path or an address. Equal arguments return the same object.

    All processes call this alike.

    Args:
        num_gpus, rank: accepted and ignored. The process group knows both.
        verbose: accepted for scripts that pass it. Downloads show a progress bar.

    Raises:
        DetectorMissing: the network cannot be found.
        UserError: the file is not TorchScript.
    """
    return _remembered(str(url), torch.device(device))


@functools.lru_cache(maxsize=4)
def _remembered(url: str, device: torch.device) -> Detector:
    return load_detector(MetricOptions(metric="The script", device=device), url)


def load_detector(opts: MetricOptions, name: str) -> Detector:
    """Returns a feature network from ``opts.detector``, a file or its folder. Without the file, downloads it once.

    Args:
        name: `INCEPTION`, `VGG16`, or the path or address of a TorchScript file.

    Raises:
        DetectorMissing: the network cannot be found.
        UserError: the file is not TorchScript.
    """
    # One process downloads. If the download fails, all processes fail together.
    path, problem = distributed.broadcast(_locate(opts, name) if distributed.get_rank() == 0 else None)
    if problem is not None:
        raise DetectorMissing(problem)
    return Detector(path, opts.device)


def _locate(opts: MetricOptions, name: str) -> tuple[str | None, str | None]:
    """Returns the path of the network, or the reason for its absence."""
    if opts.detector is not None:
        path = Path(opts.detector)
        path = path / Path(name).name if path.is_dir() else path
        if path.is_file():
            return str(path), None
        return None, f"{opts.metric} needs the feature network {path}, which is not there: check --detector."
    if os.path.isfile(name):
        return name, None
    url = name if is_url(name, allow_file_urls=True) else f"{ADDRESS}/{name}"
    if url not in _unreachable:
        try:
            return open_url(url, return_filename=True), None
        except UserError:
            _unreachable.add(url)  # other metrics do not try again
    if found := find_kept(cached_path(url)):
        return str(found), None
    return None, (
        f"{opts.metric} needs the feature network {url}, but the download failed. Copy it to {cached_path(url)}, "
        f"or name a copy with --detector=PATH."
    )


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
