"""Small networks, batches and losses that several tests need."""

import math

import torch

from semantic.discriminator import DualBranchDiscriminator
from semantic.loss import SemanticLoss

BATCH, COUNT, RESOLUTION, COARSE = 4, 3, 32, 16
CPU = torch.device("cpu")
WIDTHS = {4: 6, 8: 5, 16: 3, 32: 4, 64: 2}


def region_names(count):
    return ["background", *(f"part{k}" for k in range(1, count))]


def randomize(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def random_tensor(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build_discriminator(count=3, resolution=32, **kwargs):
    kwargs = {"c_dim": 0, "img_channels": 3, "channels": WIDTHS} | kwargs
    return randomize(DualBranchDiscriminator(img_resolution=resolution, num_regions=count, **kwargs))


class LinearAugmentation(torch.nn.Module):
    """A fixed linear map, another for images than for masks; notes what it is given."""

    def __init__(self):
        super().__init__()
        self.image_weight = torch.nn.Buffer(random_tensor(3, RESOLUTION, RESOLUTION, seed=8))
        self.mask_weight = torch.nn.Buffer(random_tensor(COUNT, RESOLUTION, RESOLUTION, seed=9))

    def forward(self, images, debug_percentile=None, mask=None, mirrored_planes=None):
        images = (images * self.image_weight).flip(3)
        return images if mask is None else (images, (mask * self.mask_weight).flip(2))


def repeatable_noise(*shape, **kwargs):
    """Stands for torch.randn and torch.randn_like: numbers that depend on the shape alone."""
    size = shape[0].shape if isinstance(shape[0], torch.Tensor) else shape
    size = size[0] if isinstance(size[0], (tuple, list)) else size
    return torch.cos(torch.arange(math.prod(size)) * 2.3).reshape(size) * math.sqrt(2)


def build_loss(G, D, augment=True, **kwargs):
    return SemanticLoss(CPU, G, D, augment_pipe=LinearAugmentation() if augment else None, **kwargs)


def latents():
    return random_tensor(BATCH, 4, seed=3), torch.zeros(BATCH, 0)


def reals():
    generator = torch.Generator().manual_seed(4)
    size = (BATCH, RESOLUTION, RESOLUTION)
    image = torch.randint(0, 256, (BATCH, 3, RESOLUTION, RESOLUTION), generator=generator, dtype=torch.uint8)
    mask = torch.randint(0, COUNT, size, generator=generator, dtype=torch.uint8)
    return {"image": image, "mask": mask, "label": torch.zeros(BATCH, 0)}


def plain_reals():
    real = reals()
    masks = torch.stack([2 * (real["mask"] == k).float() - 1 for k in range(COUNT)], dim=1)
    return real["image"].float() / 127.5 - 1, masks


def judge(loss, D, images, masks):
    if loss.augment_pipe is not None:
        images, masks = loss.augment_pipe(images, mask=masks)
    return D(images, torch.zeros(len(images), 0), mask=masks)


def gradients(network):
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def accumulate(loss, trained, phase, gain=1.0):
    """Gradients that one phase leaves on the trained network."""
    trained.requires_grad_(True)
    z, c = latents()
    loss.accumulate_gradients(phase, reals(), z, c, gain)
    trained.requires_grad_(False)
    return gradients(trained)


def check_gradients(actual, network, value, tolerance=1e-3, floor=1e-6):
    """`value` is a scalar that was computed while the network's parameters required gradients."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    plain = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
    scale = max(gradient.abs().max().item() for gradient in plain)
    assert scale > 0
    for name, expected in zip(names, plain, strict=True):
        got = torch.zeros_like(expected) if actual[name] is None else actual[name]
        worst = (got - expected).abs().max().item()
        assert worst <= tolerance * expected.abs().max().item() + floor * scale, f"{name}: {worst:.3g}"
