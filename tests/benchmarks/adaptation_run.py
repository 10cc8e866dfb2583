"""`python -m tests.benchmarks.adaptation_run OPTIONS`: train.py without the stopping rule, for measuring the rule.

A row of adaptation.jsonl also has `test`, the distance to images of the archive that the run neither trains on nor
chooses its best snapshot by, and `minutes` of CPU time. Where all images are in the run, `test` takes the images set
aside. There are no previews.
"""

import time
from typing import Any

import numpy as np
import torch

import train
from dnnlib import construct_class_by_name
from semantic.adaptation import stopping
from semantic.adaptation.measures import images_of, patch_distance
from training.dataset import ImageFolderDataset
from training.run.snapshots import Previews

TEST_IMAGES = 40


class Observer(stopping.AdaptationMonitor):
    """Measures as `AdaptationMonitor` does, and never ends a run."""

    def look(self, loss: Any, images_seen: int, snapshot: str) -> Any:
        found = super().look(loss, images_seen, snapshot)
        self.ended = None
        return found._replace(ends=False)

    def _prepare(self, source: torch.nn.Module) -> None:
        super()._prepare(source)
        self._known["test"] = unseen_images(self.training_set_kwargs)

    def _row(self, images_seen: int, samples: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
        images, test = samples[0], self._known["test"]
        count = len(images) // len(test) * len(test)
        minutes = self._known.setdefault("minutes", self.rows[-1]["minutes"] if self.rows else 0)
        row = super()._row(images_seen, samples)
        return {**row, "test": patch_distance(test, images[:count]), "minutes": minutes + time.process_time() / 60}


def unseen_images(training_set_kwargs: dict[str, Any]) -> torch.Tensor:
    """Images uint8 [N, 3, R, R] that a run does not train on."""
    trained = construct_class_by_name(**{**training_set_kwargs, "xflip": False})._raw_index
    others = ImageFolderDataset(training_set_kwargs["path"])
    unseen = np.setdiff1d(np.arange(len(others)), trained)
    others._raw_index = unseen[np.random.default_rng(0).permutation(len(unseen))[:TEST_IMAGES]]
    others._flipped = np.zeros(len(others._raw_index), bool)
    return images_of(others)


if __name__ == "__main__":
    stopping.AdaptationMonitor = Observer
    Previews.save_fakes = lambda *_: None
    train.main()
