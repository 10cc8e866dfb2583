"""The mapping network, from latents and labels to intermediate latents (Karras et al. 2019, section 2)."""

import itertools

import torch
from torch import nn

from dnnlib import UserError
from torch_utils.persistence import persistent_class
from training.layers import FullyConnectedLayer, normalize_2nd_moment


@persistent_class
class MappingNetwork(nn.Module):
    """Maps latents and labels to intermediate latents: z [N, z_dim], c [N, c_dim] -> w.

    Args:
        z_dim: size of z. 0 maps labels alone.
        c_dim: size of the label. 0 without labels.
        w_dim: size of w.
        num_ws: number of copies of w. None returns w without a slot axis.
        num_layers: number of fully connected layers.
        embed_features: size of the label's embedding. None for w_dim.
        layer_features: width of the hidden layers. None for w_dim.
        activation: activation of all layers.
        lr_multiplier: factor of the learning rate of the layers after the embedding.
        w_avg_beta: decay of the running mean of w, the centre of truncation. None keeps no mean.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.995,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        embedded = 0
        if c_dim > 0:
            embedded = w_dim if embed_features is None else embed_features
            self.embed = FullyConnectedLayer(c_dim, embedded)
        hidden = w_dim if layer_features is None else layer_features
        widths = [z_dim + embedded, *[hidden] * (num_layers - 1), w_dim]
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            layer = FullyConnectedLayer(before, after, activation=activation, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", layer)
        if w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        skip_w_avg_update: bool = False,
    ) -> torch.Tensor:
        """Map latents to codes. In training mode, update the running mean `w_avg`.

        Args:
            z: [N, z_dim], or None if z_dim is 0.
            c: [N, c_dim], or None if c_dim is 0.
            truncation_psi: w becomes w_avg + psi * (w - w_avg). 1 keeps the full variety, 0 returns the mean.
            truncation_cutoff: number of leading slots to truncate. None truncates all slots. Needs num_ws.
            skip_w_avg_update: do not update `w_avg`.

        Returns:
            [N, num_ws, w_dim], or [N, w_dim] if num_ws is None.

        Raises:
            UserError: z or c has the wrong size.
        """
        parts = []
        if self.z_dim > 0:
            parts.append(normalize_2nd_moment(_checked(z, self.z_dim, "z").float()))
        if self.c_dim > 0:
            parts.append(normalize_2nd_moment(self.embed(_checked(c, self.c_dim, "c").float())))
        w = torch.cat(parts, dim=1)
        for i in range(self.num_layers):
            w = getattr(self, f"fc{i}")(w)
        tracked = hasattr(self, "w_avg")
        if tracked and self.training and not skip_w_avg_update:
            self.w_avg.lerp_(w.detach().mean(dim=0), 1 - self.w_avg_beta)
        if self.num_ws is not None:
            w = w.unsqueeze(1).repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return w
        if not tracked:
            raise UserError("This mapping network has no w_avg. Leave truncation_psi at 1.")
        truncated = self.w_avg.lerp(w, truncation_psi)
        if truncation_cutoff is None or self.num_ws is None:
            return truncated
        return torch.cat([truncated[:, :truncation_cutoff], w[:, truncation_cutoff:]], dim=1)

    def extra_repr(self) -> str:
        return f"z_dim={self.z_dim}, c_dim={self.c_dim}, w_dim={self.w_dim}, num_ws={self.num_ws}"


def _checked(x: torch.Tensor | None, size: int, name: str) -> torch.Tensor:
    if x is None or x.ndim != 2 or x.shape[1] != size:
        found = "nothing" if x is None else f"shape {list(x.shape)}"
        raise UserError(f"This network expects {name} of shape [N, {size}], but got {found}.")
    return x
