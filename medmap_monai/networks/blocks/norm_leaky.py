"""Instance normalisation and LeakyReLU as one step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from medmap_monai.networks.blocks.backend import (
    is_channels_last,
    prefers_channels_last,
    runs_eagerly,
    to_preferred_layout,
)


def norm_leaky(x: Tensor, slope: float = 0.2, eps: float = 1e-5, consume: bool = False) -> Tensor:
    """Instance normalisation without parameters, then LeakyReLU; a channel of one voxel becomes zero.

    With ``consume`` nobody needs ``x`` afterwards: without gradients the result takes its memory.

    PyTorch's own instance norm copies channels-last maps there and back on a CPU, and its channels-last group and batch
    norm add half a million float32 one after the other (off by 1e-4, which the goldens ``*_fwd80_f32`` notice); on a
    GPU it runs one block per channel, eight for 132 multiprocessors. Hence :class:`InstanceNormLeaky` and
    :class:`DenseInstanceNormLeaky`, which also keep one map less for backward. In a graph PyTorch's own stays: a
    compiler fuses it.
    """
    if not runs_eagerly():
        return F.leaky_relu(torch.instance_norm(x, None, None, None, None, True, 0.0, eps, False), slope)
    if torch.jit.is_scripting():
        if prefers_channels_last(x) and is_channels_last(x):  # the sums of the eager path, hence its bits
            return _normalise(x, slope, eps, False)[0]
    else:
        if not prefers_channels_last(x):
            return DenseInstanceNormLeaky.apply(x, slope, eps)
        if is_channels_last(x):
            return InstanceNormLeaky.apply(x, slope, eps, consume and not torch.is_grad_enabled())
    return to_preferred_layout(F.leaky_relu_(torch.group_norm(x.contiguous(), x.shape[1], None, None, eps), slope))


class DenseInstanceNormLeaky(torch.autograd.Function):
    """Instance norm and LeakyReLU of a map in any layout, remembering only the result.

    Sums over space are PyTorch's general reductions, which split a channel over as many blocks as the device has.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = list(range(2, x.ndim))
        variance, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
        scale = (variance + eps).rsqrt_()
        result = F.leaky_relu_((wide - mean).mul_(scale), slope).to(x.dtype)
        ctx.save_for_backward(result, scale)
        ctx.slope = slope
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        result, scale = ctx.saved_tensors
        axes = list(range(2, result.ndim))
        out = result.to(scale.dtype)
        g = torch.ops.aten.leaky_relu_backward(grad.to(scale.dtype), out, ctx.slope, True)
        y = F.leaky_relu(out, 1 / ctx.slope)
        mean, product = g.mean(axes, keepdim=True), (g * y).mean(axes, keepdim=True)
        return g.sub_(mean).addcmul_(y, product, value=-1).mul_(scale).to(grad.dtype), None, None


class InstanceNormLeaky(torch.autograd.Function):
    """Instance norm and LeakyReLU of a channels-last map, remembering only the result.

    Memory is read as (rows, last axis x channels): sums over the first axis are contiguous, fast and precise (many
    short sums instead of one long one). Backward recovers the normalised map from the result, as LeakyReLU with a
    positive slope can be inverted.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, eps: float, in_place: bool) -> Tensor:
        result, scale = _normalise(x, slope, eps, in_place)
        ctx.save_for_backward(result, scale)
        ctx.slope = slope
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        result, scale = ctx.saved_tensors
        out, repeat = _as_rows(result)
        g, _ = _as_rows(to_preferred_layout(grad))
        g = torch.ops.aten.leaky_relu_backward(g, out, ctx.slope, True)  # 20x faster than torch.where
        y = F.leaky_relu(out, 1 / ctx.slope)
        mean, product = _channel_means(g, repeat), _channel_means(g, repeat, y)
        g = g.sub_(mean).addcmul_(y, product, value=-1).mul_(scale)
        return _as_map(g, result), None, None, None


def _normalise(x: Tensor, slope: float, eps: float, in_place: bool) -> tuple[Tensor, Tensor]:
    """The result of :class:`InstanceNormLeaky` and what it multiplied by; TorchScript runs it too."""
    flat, repeat = _as_rows(x)
    mean = _channel_means(flat, repeat)
    y = flat.sub_(mean) if in_place else flat - mean
    variance = _channel_means(y, repeat, y)
    scale = (variance + eps).rsqrt()
    if torch.jit.is_scripting():  # gradients need y
        y = F.leaky_relu(y * scale, slope)
    else:
        y = F.leaky_relu_(y.mul_(scale), slope)
    return _as_map(y, x), scale


def _as_rows(x: Tensor) -> tuple[Tensor, int]:
    """A channels-last map (B, C, ...) as (B, rows, last axis x C), at least float32, and the last axis's size."""
    inner = x.movedim(1, -1).flatten(-2).flatten(1, -2)
    return inner if inner.dtype == torch.float64 else inner.float(), x.shape[-1]


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    shape = list(like.movedim(1, -1).shape)
    return rows.to(like.dtype).reshape(shape).movedim(-1, 1)


def _channel_means(rows: Tensor, repeat: int, factor: Tensor | None = None) -> Tensor:
    """Mean of ``rows`` (times ``factor``) per sample and channel, repeated along the last axis: (B, 1, last axis x C).

    Products are made a few rows at a time, so that they stay in the cache (2x faster at 80^3).
    """
    if factor is None:
        sums = rows.sum(dim=1)
    else:
        few = max(1, 65536 // rows[:, 0].numel())
        left, right = rows.split(few, dim=1), factor.split(few, dim=1)
        products: list[Tensor] = []
        for i in range(len(left)):
            products.append((left[i] * right[i]).sum(dim=1))
        sums = torch.stack(products).sum(dim=0)
    means = (sums / rows.shape[1]).unflatten(1, [repeat, -1]).mean(dim=1)
    return means.repeat(1, repeat)[:, None]
