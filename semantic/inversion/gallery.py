"""Backgrounds of samples, among which a search starts with the one most like a photo's.

Patterns of a background differ in kind, and no gradient leads from one kind to another.
"""

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from semantic.inversion.kept import kept_arrays
from semantic.inversion.space import SEED
from training.images import to_uint8

SAMPLES, BATCH, PSI = 256, 16, 0.8
SIDE = 32
"""Pictures are compared at most at this size."""


@torch.no_grad()
def nearest_backgrounds(
    G: torch.nn.Module,
    images: torch.Tensor,
    masks: torch.Tensor,
    cache: bool = True,
    samples: int = SAMPLES,
    hide_progress: bool | None = None,
) -> torch.Tensor:
    """Codes w [N, D] of the samples whose backgrounds are most like those of photos.

    Args:
        G: a generator with regions.
        images: [N, 3, R, R] in [-1, 1].
        masks: class indices [N, R, R]; region 0 is compared.
        cache: keep the samples' backgrounds in the cache.
        samples: how many to compare with.
        hide_progress: True hides the bar, None shows it on terminals.
    """
    device = images.device
    only = torch.zeros(len(G.regions), device=device)
    only[0] = 1

    def build() -> dict[str, np.ndarray]:
        generator = torch.Generator().manual_seed(SEED)
        codes, pictures = [], []
        for start in tqdm(range(0, samples, BATCH), desc="Backgrounds", leave=False, disable=hide_progress):
            count = min(BATCH, samples - start)
            labels = torch.zeros(count, G.c_dim, device=device)
            labels[:, :1] = 1
            ws = G.mapping(torch.randn(count, G.z_dim, generator=generator).to(device), labels, truncation_psi=PSI)
            drawn = G.synthesis(ws, noise_mode="const", return_mask=True, keep_regions=only).image
            codes.append(ws[:, 0].cpu().numpy())
            pictures.append(to_uint8(_small(drawn)))
        return {"w": np.concatenate(codes), "pictures": np.concatenate(pictures)}

    arrays = kept_arrays(G, f"backgrounds1-{samples}", build, cache)
    pictures = torch.from_numpy(arrays["pictures"]).to(device).float() / 127.5 - 1
    shown = _small((masks == 0).float().unsqueeze(1))
    found = []
    for image, weight in zip(_small(images), shown, strict=True):
        away = ((pictures - image).abs() * weight).sum(dim=(1, 2, 3))
        found.append(int(away.argmin()))
    return torch.from_numpy(arrays["w"]).to(device)[found]


def _small(planes: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(planes, min(SIDE, planes.shape[-1]))
