"""The feed-forward encoder: from an image to codes in W+ in a few passes."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from dnnlib import UserError, open_url
from semantic.discriminator import Branch, SegmentationHead
from semantic.masks import MIN_AREA
from semantic.regions import Regions
from semantic.render import channel_table
from torch_utils import persistence
from torch_utils.network_files import machine
from training.run.snapshots import save_networks

PACKAGES = ("training", "semantic")
KEY = "encoder"
"""Name of the encoder in its file."""
SUFFIX = "-encoder.pkl"
"""End of the name of an encoder: NAME-encoder.pkl belongs to NAME.pkl."""
LAYOUT = 8
"""Side of the coarse masks in the description of an image."""
SAME_AVERAGE = 0.5
"""Correlation of two networks' average codes from which on their codes mean the same."""
Start = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


@persistence.persistent_class
class Regression(torch.nn.Module):
    """A map of low rank from descriptions to codes. Each group has its own map.

    A group reads its own description, and the context of the whole image, which all groups share.

    Args:
        groups: G.
        features: F, numbers in a description.
        context: C, numbers in the context of the whole image.
        rank: R, rank of the map of a group.
        outputs: O, numbers of its codes.
    """

    def __init__(self, groups: int, features: int, context: int, rank: int, outputs: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(groups, features))
        self.register_buffer("scale", torch.ones(groups, features))
        self.first = torch.nn.Parameter(torch.zeros(groups, features + context, rank))
        self.last = torch.nn.Parameter(torch.zeros(groups, rank, outputs))
        self.bias = torch.nn.Parameter(torch.zeros(groups, outputs))

    def inputs(self, descriptions: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Returns inputs [N, G, F + C] of about unit size from descriptions [N, G, F] and context [N, C]."""
        own = ((descriptions - self.mean) * self.scale).clamp(-8, 8)
        return torch.cat([own, context.unsqueeze(1).expand(-1, own.shape[1], -1)], dim=2)

    def forward(self, descriptions: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Returns outputs [N, G, O] from descriptions [N, G, F] and context [N, C]."""
        x = torch.einsum("ngf,gfr->ngr", self.inputs(descriptions, context), self.first)
        return torch.einsum("ngr,gro->ngo", x, self.last) + self.bias


@persistence.persistent_class
class Pass(torch.nn.Module):
    """One pass of the encoder. It returns changes of codes.

    Args:
        num_regions: K.
        features: F, numbers in the description of a region.
        context: numbers that are kept of the whole image.
        rank: see `Regression`.
        w_dim: D.
        base_layers: b.
    """

    def __init__(self, num_regions: int, features: int, context: int, rank: int, w_dim: int, base_layers: int):
        super().__init__()
        self.w_dim = w_dim
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.narrow = torch.nn.Parameter(torch.zeros(features, context))
        self.regions = Regression(num_regions, features, context, rank, 2 * w_dim)
        self.base = Regression(1, features, context, rank, base_layers * w_dim) if base_layers else None

    def context(self, descriptions: torch.Tensor) -> torch.Tensor:
        """Returns the context [N, C]: a summary of the last of the descriptions [N, K + 1, F], for the whole image."""
        return ((descriptions[:, -1] - self.mean) * self.scale).clamp(-8, 8) @ self.narrow

    def forward(self, descriptions: torch.Tensor) -> torch.Tensor:
        """Returns changes of codes [N, b + 2K, D] from descriptions [N, K + 1, F]."""
        context = self.context(descriptions)
        codes = [self.regions(descriptions[:, :-1], context)]
        if self.base is not None:
            codes.insert(0, self.base(descriptions[:, -1:], context))
        return torch.cat([x.reshape(len(x), -1, self.w_dim) for x in codes], dim=1)


@persistence.persistent_class
class Encoder(torch.nn.Module):
    """Codes of images, region by region.

    The branch of a discriminator reads the image, and its head finds the regions. Features, colours and the layout of a
    region are pooled under its mask. They are the description of the region. The first pass turns descriptions into
    codes. Each further pass renders the codes, and compares the descriptions of image and rendering. Then it corrects
    the codes (supervised descent, Xiong and De la Torre 2013).

    Args:
        img_resolution: R.
        w_dim: D.
        names: names of the regions of the network.
        base_layers: number of base codes.
        channels: width of the branch at each resolution.
        num_passes: number of passes.
        rank, context: see `Regression`.
        block_kwargs: see `Branch`.
    """

    def __init__(
        self,
        img_resolution: int,
        w_dim: int,
        names: Sequence[str],
        base_layers: int,
        channels: Mapping[int, int],
        num_passes: int = 3,
        rank: int = 48,
        context: int = 48,
        block_kwargs: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.img_resolution = img_resolution
        self.names = list(names)
        channels = {int(r): int(n) for r, n in channels.items()}
        self.image = Branch(img_resolution, 3, channels, block_kwargs)
        halves = {r: n for r, n in channels.items() if r < img_resolution}
        self.segmentation = SegmentationHead(halves, len(names))
        features = sum(halves.values()) + 6 + 4 * LAYOUT**2 + 2
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.passes = torch.nn.ModuleList(
            Pass(len(names), features, context, rank, w_dim, base_layers) for _ in range(num_passes)
        )

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the scores [N, K, R, R] of the regions in images [N, 3, R, R]."""
        return self.segmentation(self.image.features(images))

    def describe(self, images: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the descriptions [N, K + 1, F] of the regions of images and, last, of the whole images.

        Args:
            images: [N, 3, R, R] in [-1, 1].
            masks: class indices int64 [N, R, R], or None: the encoder's own.
        """
        levels = self.image.features(images)
        if masks is None:
            masks = self.segmentation(levels).argmax(dim=1)
        with torch.autocast(images.device.type, enabled=False):
            return self._pool(images.float().clamp(-1, 1), masks, [level.float() for level in levels])

    def _pool(self, images: torch.Tensor, masks: torch.Tensor, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        planes = F.one_hot(masks.long(), len(self.names)).permute(0, 3, 1, 2).to(images)
        planes = torch.cat([planes, torch.ones_like(planes[:, :1])], dim=1)
        areas = planes.mean(dim=(2, 3))
        there = (areas >= MIN_AREA).to(images).unsqueeze(2)
        pooled = [_pooled(level, F.adaptive_avg_pool2d(planes, level.shape[-1])) for level in levels]
        colors = _pooled(images, planes)
        spread = (_pooled(images.square(), planes) - colors.square()).clamp(min=0).sqrt()
        layout = F.adaptive_avg_pool2d(planes, LAYOUT).flatten(2)
        painted = F.adaptive_avg_pool2d((planes.unsqueeze(2) * images.unsqueeze(1)).flatten(1, 2), LAYOUT)
        painted = painted.view(*areas.shape, -1)
        described = torch.cat([*pooled, colors, spread, layout, painted, areas.sqrt().unsqueeze(2)], dim=2)
        return torch.cat([described * there, there], dim=2)

    def forward(self, images: torch.Tensor, G: torch.nn.Module, masks: torch.Tensor | None = None) -> torch.Tensor:
        """Returns codes [N, num_ws, D] of images.

        Args:
            images: [N, 3, R, R] in [-1, 1].
            G: the generator that it belongs to.
            masks: class indices int64 [N, R, R], or None: the encoder finds the regions itself.
        """
        target = self.describe(images, masks)
        ws = self.w_avg + self.passes[0](target)
        for further in self.passes[1:]:
            ws = ws + further(target - self.rendered(G, ws))
        return ws

    def rendered(self, G: torch.nn.Module, ws: torch.Tensor) -> torch.Tensor:
        """Returns the descriptions [N, K + 1, F] of the images that codes render."""
        out = G.synthesis(ws, noise_mode="const", return_mask=True)
        return self.describe(out.image.float(), out.mask.argmax(dim=1))

    def mismatch(self, G: torch.nn.Module) -> str | None:
        """Returns the reason why this encoder does not belong to a generator, or None if it does.

        Networks with a common ancestor may share an encoder.
        """
        regions = getattr(G, "regions", None)
        if regions is None:
            return "the network has no regions"
        if list(regions.names) != self.names:
            return f"its regions are {', '.join(self.names)}, those of the network {', '.join(regions.names)}"
        if G.img_resolution != self.img_resolution:
            return f"its images have {self.img_resolution} pixels, those of the network {G.img_resolution}"
        if G.w_dim != len(self.w_avg) or regions.base_layers != self._base_layers():
            return "the network has codes of another shape"
        average = G.mapping.w_avg.float().to(self.w_avg)
        scale = average.norm() * self.w_avg.norm()
        if scale > 0 and average @ self.w_avg / scale < SAME_AVERAGE:
            return "the average codes of both differ"
        return None

    def _base_layers(self) -> int:
        base = self.passes[0].base
        return 0 if base is None else base.bias.shape[1] // len(self.w_avg)


def new_encoder(networks: Mapping[str, Any], **options: Any) -> Encoder:
    """Returns an encoder for a network. It takes branch and head from the discriminator if there are any.

    Args:
        networks: G_ema and D, as from ``legacy.load_network``.
        options: options of `Encoder`: num_passes, rank, context.

    Raises:
        UserError: the network has no regions, or its images are not in colour.
    """
    G, D = networks["G_ema"], networks.get("D")
    regions: Regions | None = getattr(G, "regions", None)
    if regions is None:
        raise UserError("This network has no regions to encode. Use a network trained with --cfg=semantic.")
    if G.img_channels != 3:
        raise UserError(f"Photos have 3 channels, but this network makes images of {G.img_channels}.")
    fits = has_head(networks)
    if fits:
        arguments = persistence.named_arguments(D.image)
        channels, blocks = arguments["channels"], arguments.get("block_kwargs")
    else:
        channels, blocks = channel_table(G.img_resolution, 32 * G.img_resolution, 128), None
    encoder = Encoder(
        G.img_resolution, G.w_dim, regions.names, regions.base_layers, channels, block_kwargs=blocks, **options
    )
    if fits:
        encoder.image.load_state_dict(D.image.state_dict())
        encoder.segmentation.load_state_dict(D.segmentation.state_dict())
    encoder.w_avg.copy_(G.mapping.w_avg)
    return encoder


def has_head(networks: Mapping[str, Any]) -> bool:
    """Returns whether the discriminator of a network finds the regions in images of its size."""
    G, D = networks["G_ema"], networks.get("D")
    if getattr(D, "segmentation", None) is None:
        return False
    return D.num_regions == len(G.regions) and D.img_resolution == G.img_resolution and D.img_channels == 3


def save_encoder(path: str | os.PathLike, encoder: Encoder) -> None:
    """Write an encoder in half precision. The file appears when it is complete."""
    twin = type(encoder)(*encoder.init_args, **encoder.init_kwargs)
    twin.load_state_dict(encoder.state_dict())
    for tensor in [*twin.parameters(), *twin.buffers()]:
        tensor.data = tensor.data.half()
    save_networks(path, None, **{KEY: twin})


def load_encoder(path: str | os.PathLike, G: torch.nn.Module | None = None) -> Encoder:
    """Returns the encoder of a file.

    Args:
        path: file or address.
        G: the generator of the encoder. None accepts an encoder of any generator.

    Raises:
        UserError: the file is missing, has another format, or belongs to another network.
    """
    with open_url(os.fspath(path)) as file:
        data = machine.load(file, packages=PACKAGES, where=str(path))
    encoder = data.get(KEY) if isinstance(data, dict) else None
    if not isinstance(encoder, Encoder):
        raise UserError(f"Cannot read {path}. Expected an encoder of train_encoder.py.")
    why = None if G is None else encoder.mismatch(G)
    if why is not None:
        raise UserError(f"The encoder {path} belongs to another network: {why}. Train one with train_encoder.py.")
    return encoder.eval().requires_grad_(False)


def start_of(networks: Mapping[str, Any], path: str | os.PathLike | None, named: str | None = None) -> Start | None:
    """Returns the function that starts a search with the codes of an encoder, or None without an encoder.

    Args:
        networks: G_ema, as from ``legacy.load_network``.
        path: path of the network. An encoder beside the network is used if it fits.
        named: an encoder that was asked for.

    Raises:
        UserError: there is an encoder of that name, but it cannot be used.
    """
    G = networks["G_ema"]
    if named is not None:
        return _start(load_encoder(named, G), G)
    beside = None if path is None else Path(path).with_name(Path(path).stem + SUFFIX)
    if beside is None or not beside.is_file():
        return None
    encoder = load_encoder(beside)
    return None if encoder.mismatch(G) else _start(encoder, G)


def _start(encoder: Encoder, G: torch.nn.Module) -> Start:
    @torch.no_grad()
    def start(images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        encoder.to(images.device)
        return encoder(images, G, masks)

    return start


def _pooled(features: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
    """Returns the means [N, G, C] of features [N, C, H, W] under planes [N, G, H, W]. Empty planes have means of 0."""
    total = torch.einsum("nchw,nghw->ngc", features, planes)
    return total / planes.sum(dim=(2, 3)).clamp(min=1e-3).unsqueeze(2)
