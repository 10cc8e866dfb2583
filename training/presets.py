"""Tables of the configurations of plain StyleGAN2-ADA."""

import dataclasses
from typing import Any

from dnnlib import EasyDict, UserError


@dataclasses.dataclass(frozen=True)
class Preset:
    """One row of the table of published configurations.

    Attributes:
        kimg: length of training in thousands of images.
        batch: images per step.
        ref_gpus: devices that shared a batch. Each handles batch / ref_gpus images at a time, also on fewer devices.
        mbstd: group size of the minibatch standard deviation.
        fmaps: width, relative to 32768 / resolution channels.
        lrate: learning rate of both networks.
        gamma: weight of R1.
        ema: half-life of the weight average in thousands of images.
        ramp: limits the half-life to this fraction of the images seen. None sets no limit.
        mapping: number of layers of the mapping network.
        loss: further options of the loss.
        D: further options of the discriminator.
    """

    kimg: float = 25000
    batch: int = 32
    ref_gpus: int = 8
    mbstd: int = 4
    fmaps: float = 1
    lrate: float = 0.002
    gamma: float = 10
    ema: float = 10
    ramp: float | None = None
    mapping: int = 8
    loss: dict[str, Any] = dataclasses.field(default_factory=dict)
    D: dict[str, Any] = dataclasses.field(default_factory=dict)


PRESETS = {
    "stylegan2": Preset(),
    "paper256": Preset(batch=64, mbstd=8, fmaps=0.5, lrate=0.0025, gamma=1, ema=20),
    "paper512": Preset(batch=64, mbstd=8, lrate=0.0025, gamma=0.5, ema=20),
    "paper1024": Preset(gamma=2),
    "cifar": Preset(
        kimg=100000,
        batch=64,
        ref_gpus=2,
        mbstd=32,
        lrate=0.0025,
        gamma=0.01,
        ema=500,
        ramp=0.05,
        mapping=2,
        loss={"pl_weight": 0, "style_mixing_prob": 0},
        D={"architecture": "orig"},
    ),
}


def auto_preset(resolution: int, processes: int) -> Preset:
    """Returns values for any resolution: batch size by memory, gamma by pixels per image and images per batch."""
    batch = max(min(processes * min(4096 // resolution, 32), 64), processes)
    return Preset(
        batch=batch,
        ref_gpus=processes,
        mbstd=min(batch // processes, 4),
        fmaps=1 if resolution >= 512 else 0.5,
        lrate=0.002 if resolution >= 1024 else 0.0025,
        gamma=0.0002 * resolution**2 / batch,
        ema=batch * 10 / 32,
        ramp=0.05,
        mapping=2,
    )


def stylegan2_options(cfg: str, resolution: int, processes: int, precision: str) -> EasyDict:
    """Returns options of `training.training_loop.training_loop` for a published configuration.

    Args:
        cfg: 'auto' or a name in `PRESETS`.
        resolution: resolution of the data.
        processes: number of processes that share a batch.
        precision: 'fp16' runs the four highest resolutions in half precision on a GPU.
    """
    if cfg != "auto" and cfg not in PRESETS:
        raise UserError(f"Unknown configuration {cfg!r}. Choose one of auto, {', '.join(PRESETS)}.")
    preset = auto_preset(resolution, processes) if cfg == "auto" else PRESETS[cfg]
    width = {"channel_base": int(preset.fmaps * 32768), "channel_max": 512}
    half = {"num_fp16_res": 4, "conv_clamp": 256} if precision == "fp16" else {}
    return EasyDict(
        G_kwargs=EasyDict(
            class_name="training.networks.Generator",
            z_dim=512,
            w_dim=512,
            mapping_kwargs={"num_layers": preset.mapping},
            synthesis_kwargs={**width, **half},
        ),
        D_kwargs=EasyDict(
            class_name="training.networks.Discriminator",
            **width,
            **half,
            **preset.D,
            block_kwargs={},
            epilogue_kwargs={"mbstd_group_size": preset.mbstd},
        ),
        loss_kwargs=EasyDict(
            class_name="training.loss.StyleGAN2Loss",
            r1_gamma=preset.gamma,
            precision="bf16" if precision == "bf16" else "fp32",
            **preset.loss,
        ),
        **optimizer_options(preset.lrate),
        batch_size=preset.batch,
        batch_gpu=preset.batch // preset.ref_gpus,
        ema_kimg=preset.ema,
        ema_rampup=preset.ramp,
        total_kimg=preset.kimg,
    )


def optimizer_options(lrate: float) -> dict[str, EasyDict]:
    """Returns options of Adam, the same in all configurations, for both networks."""
    options = {"class_name": "torch.optim.Adam", "lr": lrate, "betas": [0, 0.99], "eps": 1e-8, "fused": True}
    return {"G_opt_kwargs": EasyDict(options), "D_opt_kwargs": EasyDict(options)}
