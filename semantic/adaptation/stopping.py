"""Decides when an adaptation ends, from a row of figures for each snapshot."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from dnnlib import UserError, atomic_open, atomic_path, construct_class_by_name
from semantic.adaptation.low_rank import add_low_rank
from semantic.adaptation.measures import (
    images_of,
    mask_drift,
    nearest_distance,
    patch_distance,
    random_images,
    sample_count,
    samples_of,
    similarity_of_pairs,
)
from training.run.monitor import Look, Monitor

ROWS = "adaptation.jsonl"
BEST = "network-best.pkl"


class Bounds(NamedTuple):
    """How far an adaptation may go."""

    patience: int = 3
    """Number of snapshots without gain after which the adaptation ends."""
    drift: float = 0.5
    """Largest mean drift of the masks of regions."""
    diversity: float = 0.5
    """Smallest diversity (1 - MS-SSIM of pairs), relative to the less diverse of images and source."""


def mean_drift(row: Mapping[str, Any]) -> float:
    """Returns the mean over the regions of a row."""
    return sum(row["drift"].values()) / max(len(row["drift"]), 1)


def beyond(row: Mapping[str, Any], similarity: float, bounds: Bounds) -> str | None:
    """Returns the bound that a row exceeds, as part of a sentence, or None."""
    drift = mean_drift(row)
    if drift > bounds.drift:
        return f"masks have drifted by {drift:.3f} from masks of the source, more than {bounds.drift:g}"
    least = bounds.diversity * (1 - similarity)
    if 1 - row["msssim"] < least:
        return f"the MS-SSIM of pairs of images is {row['msssim']:.2f}, more than {1 - least:.2f}"
    return None


def best_row(rows: Sequence[Mapping[str, Any]], similarity: float, bounds: Bounds) -> int:
    """Returns the index of the row with the least distance among those within the bounds, else among all.

    The first row is the source's and does not count.

    Raises:
        ValueError: there is no row after the source's.
    """
    candidates = range(1, len(rows))
    sound = [i for i in candidates if beyond(rows[i], similarity, bounds) is None]
    return min(sound or candidates, key=lambda i: rows[i]["swd"])


def reason_to_end(rows: Sequence[Mapping[str, Any]], similarity: float, bounds: Bounds) -> str | None:
    """Returns the reason why the newest row ends an adaptation, as part of a sentence, or None.

    Args:
        rows: rows of all snapshots. The first row is the source's row.
        similarity: MS-SSIM of pairs of real images, or of the source's where it is higher.
        bounds: see `Bounds`.
    """
    why = beyond(rows[-1], similarity, bounds)
    if why is not None:
        return why
    if len(rows) - 1 - best_row(rows, similarity, bounds) >= bounds.patience:
        return f"the distance to held-out images has not shrunk over {bounds.patience} snapshots"
    return None


class AdaptationMonitor(Monitor):
    """Starts G from its average, measures each snapshot, keeps the best one, and ends the run.

    Every row of adaptation.jsonl has `kimg`, `swd` to the held-out images, `drift` by region, and `msssim` of pairs of
    samples. It also has `nearest`, the distance of samples to the nearest training image. The first row describes the
    source.

    Args:
        run_dir, networks, device, training_set_kwargs: see `training.run.monitor.Monitor`. The data are a
            `semantic.adaptation.data.TargetDataset`.
        low_rank: rank of the changes of local weights. None: no low-rank changes.
        seed: seed of the samples.
        bounds: changes to `Bounds`.
    """

    def __init__(
        self,
        run_dir: str,
        networks: Mapping[str, torch.nn.Module],
        device: torch.device,
        training_set_kwargs: Mapping[str, Any],
        low_rank: int | None = None,
        seed: int = 0,
        bounds: Mapping[str, float] | None = None,
    ):
        super().__init__(run_dir, networks, device, training_set_kwargs)
        networks["G"].load_state_dict(networks["G_ema"].state_dict())  # or frozen parts would differ between the two
        if low_rank is not None:
            add_low_rank(networks["G"], networks["G_ema"], low_rank)
        self.seed = seed
        self.bounds = Bounds(**(bounds or {}))
        self.rows: list[dict[str, Any]] = []
        self.ended: str | None = None
        self._known: dict[str, Any] = {}

    def look(self, loss: Any, images_seen: int, snapshot: str) -> Look:
        with loss.autocast():
            if not self._known:
                self._prepare(loss.source.G)
            samples = self._samples(self.networks["G_ema"])
        if not self.rows:
            self.rows.append(self._row(0, self._known["source"]))
        similarity = max(self._known["similarity"], self.rows[0]["msssim"])  # a source may be less diverse than images
        row = self._row(images_seen, samples)
        self.rows.append(row)
        with atomic_open(os.path.join(self.run_dir, ROWS)) as file:
            file.writelines(json.dumps(row) + "\n" for row in self.rows)
        best = best_row(self.rows, similarity, self.bounds)
        if best == len(self.rows) - 1:
            with atomic_path(os.path.join(self.run_dir, BEST)) as path:
                shutil.copyfile(snapshot, path)
        line = (
            f"Held-out SWD {row['swd']:.1f} (source {self.rows[0]['swd']:.1f}), drift {mean_drift(row):.3f}, "
            f"MS-SSIM {row['msssim']:.3f}, nearest {row['nearest']:.3f}"
        )
        why = reason_to_end(self.rows, similarity, self.bounds)
        if why is not None:
            self.ended = why
            line += f"\nThe adaptation ends here: {why}. {BEST} is the snapshot of {self.rows[best]['kimg']:g} kimg."
        return Look(line, why is not None)

    def _prepare(self, source: torch.nn.Module) -> None:
        """Read the images of both parts, and draw the source's samples."""
        parts = {"train": {"held_out": False}, "held_out": {"held_out": True, "xflip": False}}
        for name, part in parts.items():
            dataset = construct_class_by_name(**{**self.training_set_kwargs, **part})
            self._known[name] = images_of(dataset, most=2000 if name == "train" else 200)
        self._known["similarity"] = similarity_of_pairs(random_images(self._known["train"]))
        self._known["source"] = self._samples(source)

    def _samples(self, G: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns images and masks of the same latents at each call. The number of images suits the held-out images."""
        real = len(self._known["held_out"])
        generator = torch.Generator().manual_seed(self.seed)
        z = torch.randn([sample_count(real), G.z_dim], generator=generator)
        labels = torch.zeros(len(z), G.c_dim)
        if G.c_dim:
            labels[torch.arange(len(z)), torch.randint(G.c_dim, [len(z)], generator=generator)] = 1
        return samples_of(G, z.to(self.device), labels.to(self.device))

    def _row(self, images_seen: int, samples: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
        """Returns the figures of one snapshot."""
        images, masks = samples
        train, held_out, source = (self._known[name] for name in ("train", "held_out", "source"))
        return {
            "kimg": images_seen / 1000,
            "swd": patch_distance(held_out, images),
            "drift": mask_drift(masks, source[1], self.networks["G_ema"].regions.names),
            "msssim": similarity_of_pairs(images),
            "nearest": nearest_distance(images, train),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "ended": self.ended}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rows = [dict(row) for row in state["rows"]]
        if state["ended"] is not None:
            raise UserError(f"The adaptation in {self.run_dir} has ended: {state['ended']}. Use {BEST} in its folder.")
