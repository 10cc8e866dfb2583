"""Bilinear grid sampling with derivatives of any order."""

import torch
import torch.nn.functional as F

from torch_utils.ops._arguments import check_images

# False uses PyTorch's own operator. Some supported versions cannot differentiate its gradient again.
enabled = True


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample images at given points: bilinear, zeros outside, `align_corners=False`.

    Derivatives of every order with respect to `input` are exact, with any version of PyTorch. If the grid requires
    gradients, PyTorch's operator is used. It has first derivatives for both, and second derivatives in some versions.

    Args:
        input: Images `[N, C, H, W]`.
        grid: Points `[N, h, w, 2]`, x before y. -1 and 1 are the outer edges of the outermost pixels.

    Returns:
        `[N, C, h, w]`.

    Raises:
        ValueError: the shapes differ from these.
    """
    check_images(input, "input")
    if grid.ndim != 4 or grid.shape[0] != input.shape[0] or grid.shape[3] != 2:
        raise ValueError(f"grid must have shape [{input.shape[0]}, h, w, 2], not {list(grid.shape)}")
    if not enabled or grid.requires_grad:
        return _sample(input, grid)
    return _Gather.apply(input, grid)


def _sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class _Gather(torch.autograd.Function):
    """Each output pixel is a weighted sum of input pixels, with weights that depend only on the grid."""

    @staticmethod
    def forward(ctx, input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        ctx.image_shape = input.shape
        return _sample(input, grid)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        (grid,) = ctx.saved_tensors
        return _Scatter.apply(grad, grid, ctx.image_shape), None


class _Scatter(torch.autograd.Function):
    """The transposed sum. It is linear, so its derivative is `_Gather` again."""

    @staticmethod
    def forward(ctx, grad: torch.Tensor, grid: torch.Tensor, image_shape: torch.Size) -> torch.Tensor:
        ctx.save_for_backward(grid)
        image = grad.new_zeros(1).expand(image_shape)  # this derivative does not depend on the image's values
        bilinear, zeros, align_corners, wanted = 0, 0, False, [True, False]
        operator = torch.ops.aten.grid_sampler_2d_backward
        return operator(grad, image, grid, bilinear, zeros, align_corners, wanted)[0]

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        (grid,) = ctx.saved_tensors
        return _Gather.apply(grad, grid), None, None
