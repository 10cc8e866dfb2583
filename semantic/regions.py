"""The regions of a compositional model: names, colours, transparency, and the slots of their codes in W+."""

import colorsys
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from dnnlib import UserError

BASE_LAYERS = 2
MAX_REGIONS = 255  # masks are stored as 8-bit indices
_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
_SIDE = re.compile(  # a separate word, or a part of leftEye, EyeLeft
    r"(?<![^\W\d_])(left|right|l|r)(?![^\W\d_])|(?<![^\W\d_])(left|right)(?=(?-i:[A-Z]))|(?<=(?-i:[a-z]))(?-i:Left|Right)",
    re.IGNORECASE,
)


class Regions:
    """K named regions. Region 0 is the background.

    W+ layout (Shi et al. 2022, section 3.1): slots 0..b-1 hold the base codes that all regions share. Region k has
    slots b+2k (shape) and b+2k+1 (texture). In total there are b+2K slots.

    Args:
        names: one name per region, background first.
        colors: one (r, g, b) in 0..255 per region for pictures of masks. None chooses distinct colours.
        transparent: indices or names of regions that show other regions behind them (glasses, earrings).
        base_layers: b, the number of base codes.
        mirror: pairs of regions, by index or name, that are exchanged in a mirror image. None pairs regions whose
            names differ in left and right only, see `mirror_pairs`.

    Raises:
        UserError: there are fewer than 2 regions, a name is repeated, empty or has control characters, a colour is
            wrong, or a transparent or paired region is unknown.
    """

    def __init__(
        self,
        names: Sequence[str],
        colors: Sequence[Sequence[int]] | None = None,
        transparent: Iterable[int | str] = (),
        base_layers: int = BASE_LAYERS,
        mirror: Iterable[Sequence[int | str]] | None = None,
    ):
        self.names = [str(name).strip() for name in names]
        self.base_layers = int(base_layers)
        if not 2 <= len(self.names) <= MAX_REGIONS:
            raise UserError(f"A model needs 2 to {MAX_REGIONS} regions, but there are {len(self.names)} names.")
        if len(set(self.names)) != len(self.names):
            raise UserError(f"Region names must differ: {', '.join(self.names)}.")
        bad = next((k for k, name in enumerate(self.names) if not name or not name.isprintable()), None)
        if bad is not None:
            raise UserError(
                f"Region {bad} has the name {self.names[bad]!r}. A name needs a character and must be a single line."
            )
        if self.base_layers < 0:
            raise UserError(f"base_layers must not be negative, but is {self.base_layers}.")
        self.colors = [tuple(int(v) for v in color) for color in (colors or distinct_colors(len(self.names)))]
        if len(self.colors) != len(self.names) or any(
            len(c) != 3 or not all(0 <= v < 256 for v in c) for c in self.colors
        ):
            raise UserError(
                f"Each region needs a colour [r, g, b] in 0..255: {len(self.names)} names, colours {self.colors}."
            )
        self.transparent = sorted({self.index(region) for region in transparent})
        if 0 in self.transparent:
            raise UserError(f"Region 0 ({self.names[0]}) is the background and cannot be transparent.")
        pairs = mirror_pairs(self.names) if mirror is None else mirror
        self.mirror = [tuple(sorted(self.index(region) for region in pair)) for pair in pairs]
        paired = [k for pair in self.mirror for k in pair]
        if len(set(paired)) != len(paired) or any(len(pair) != 2 for pair in self.mirror):
            raise UserError(
                f'"mirror" must hold pairs of two regions, with each region in one pair, not {self.mirror}.'
            )

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regions) and (self.to_dict(), self.base_layers) == (other.to_dict(), other.base_layers)

    __hash__ = None

    def __repr__(self) -> str:
        return f"Regions({', '.join(self.names)})"

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], base_layers: int = BASE_LAYERS, where: str = "the regions"
    ) -> "Regions":
        """Returns regions from dataset.json: {"names", "colors", "transparent", "mirror"}. Only names are required."""
        if not isinstance(data, Mapping) or not isinstance(data.get("names"), (list, tuple)):
            raise UserError(
                f'Cannot read {where}. Expected {{"names": [...], "colors": [[r, g, b], ...], "transparent": [...]}}.'
            )
        try:
            seen_through, mirror = data.get("transparent") or (), data.get("mirror")
            return cls(data["names"], data.get("colors"), seen_through, base_layers, mirror)
        except (TypeError, ValueError) as error:
            raise UserError(f"Cannot read {where}: {error}.") from error

    def to_dict(self) -> dict[str, Any]:
        """Returns the dictionary for `from_dict`, in plain lists."""
        return {
            "names": list(self.names),
            "colors": [list(c) for c in self.colors],
            "transparent": list(self.transparent),
            "mirror": [list(pair) for pair in self.mirror],
        }

    def index(self, region: int | str) -> int:
        """Returns the index of a region, given its name or number.

        Raises:
            UserError: the region does not exist. The message lists all regions.
        """
        if isinstance(region, str):
            if region in self.names:
                return self.names.index(region)
            if not (region.isdecimal() and len(region) < 10):
                raise UserError(f"Unknown region {region!r}. The regions are: {', '.join(self.names)}.")
        if not 0 <= int(region) < len(self.names):
            raise UserError(
                f"Unknown region number {region}. The numbers are 0 ({self.names[0]}) to {len(self.names) - 1}."
            )
        return int(region)

    def select(self, text: str | None) -> list[int]:
        """Returns the indices of a comma-separated list such as ``'hair,eye'``. None selects all regions.

        Names may hold commas. The longest name that fits is used.
        """
        if text is None:
            return list(range(len(self)))
        found, rest = [], text.strip()
        while rest:
            if rest.startswith(","):
                rest = rest[1:].strip()
                continue
            index, rest = self.split(rest, ",")
            found.append(index)
        return found

    def split(self, text: str, separator: str = ":") -> tuple[int, str]:
        """Returns the region that `text` starts with, and the rest: ``'hair:dx=1'`` -> (k, ``'dx=1'``).

        Names may hold separators. The longest name that fits is used.

        Raises:
            UserError: the region does not exist. The message lists all regions.
        """
        text = text.strip()
        for name in sorted(self.names, key=len, reverse=True):
            rest = text[len(name) :].lstrip()
            if text.startswith(name) and (not rest or rest.startswith(separator)):
                return self.names.index(name), rest[len(separator) :].strip()
        name, _, rest = text.partition(separator)
        return self.index(name.strip()), rest.strip()

    def mirror_table(self) -> list[int]:
        """Returns for each index the index of its counterpart in a mirror image."""
        table = list(range(len(self)))
        for i, j in self.mirror:
            table[i], table[j] = j, i
        return table

    def mirror_note(self) -> str | None:
        """Returns a sentence about the regions that are exchanged in mirror images, or None."""
        pairs = ", ".join(f"{self.names[i]} and {self.names[j]}" for i, j in self.mirror)
        return f"Regions that are exchanged in mirror images: {pairs}." if pairs else None

    @property
    def num_ws(self) -> int:
        """Number of W+ slots, b + 2K."""
        return self.base_layers + 2 * len(self)

    @property
    def base_slots(self) -> range:
        """Slots of the base codes, which all regions but the background share."""
        return range(self.base_layers)

    def slots(self, region: int | str) -> dict[str, int]:
        """Returns the slots of one region: ``{'shape': b + 2k, 'texture': b + 2k + 1}``."""
        first = self.base_layers + 2 * self.index(region)
        return {"shape": first, "texture": first + 1}

    def layer_slots(self, num_layers: int, depth_layers: int) -> torch.Tensor:
        """Returns the W+ slot for each layer of each local generator (section 3.1).

        Layers before `base_layers` use the base codes, layers before `depth_layers` the region's shape code, all other
        layers its texture code. The background has no base layers.

        Returns:
            int64 [K, num_layers].
        """
        table = torch.empty(len(self), num_layers, dtype=torch.int64)
        for k in range(len(self)):
            slots = self.slots(k)
            table[k, :depth_layers] = slots["shape"]
            table[k, depth_layers:] = slots["texture"]
        base = min(self.base_layers, num_layers)
        table[1:, :base] = torch.arange(base)
        return table

    def paint(self, mask: torch.Tensor) -> torch.Tensor:
        """Returns masks in the colours of the regions.

        Args:
            mask: class indices [N, H, W] (integer), or planes [N, K, H, W], whose largest plane sets the region.

        Returns:
            float32 [N, 3, H, W] in [-1, 1].
        """
        indices = mask.argmax(dim=1) if mask.ndim == 4 else mask.long()
        colors = torch.tensor(self.colors, dtype=torch.float32, device=mask.device) / 127.5 - 1
        return colors[indices].permute(0, 3, 1, 2)


def mirror_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Returns pairs of indices of names that differ in left and right only: left_eye and right_eye, l_brow and r_brow.

    A name without a counterpart has no pair: ``neck_l`` of CelebAMask-HQ is a necklace.
    """
    known = {name.lower(): k for k, name in enumerate(names)}
    pairs = set()
    for k, name in enumerate(names):
        other = known.get(_SIDE.sub(lambda found: _SIDES[found[0].lower()], name).lower(), k)
        if other != k:
            pairs.add((min(k, other), max(k, other)))
    return sorted(pairs)


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Returns `count` distinct colours: black, then hues by golden-ratio steps at changing brightness."""
    colors = [(0, 0, 0)]
    for i in range(1, count):
        rgb = colorsys.hsv_to_rgb(i * 0.61803398875 % 1.0, (0.85, 0.55, 0.7)[i % 3], (0.95, 0.9, 0.65)[i % 3])
        colors.append(tuple(round(255 * v) for v in rgb))
    return colors


CELEBAMASK = Regions(
    names=[
        "background", "face", "eye", "eyebrow", "mouth", "nose", "ear", "hair", "neck", "cloth", "glasses", "hat",
        "earring",
    ],
    colors=[
        (24, 26, 36), (240, 190, 150), (70, 150, 240), (150, 90, 40), (220, 60, 90), (250, 150, 70), (180, 110, 170),
        (110, 60, 20), (200, 150, 110), (70, 160, 120), (130, 220, 230), (250, 220, 70), (250, 120, 220),
    ],
    transparent=["glasses", "earring"],
)  # fmt: skip
"""The 13 regions of CelebAMask-HQ."""
