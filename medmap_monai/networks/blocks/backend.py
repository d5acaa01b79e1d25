"""The one place for layout and backend choices: what makes the same arithmetic fast on the machine at hand."""

from __future__ import annotations

from typing import Any, List, Optional  # noqa: UP035 (TorchScript reads these forms)

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def lone_row_is_slow(x: Tensor, limit: int = 262144) -> bool:
    """Whether ``x`` (B, C, ...) is a single row that would fall off the CPU convolution cliff.

    PyTorch's CPU convolution leaves oneDNN for a slow kernel when the batch is one and the volume is small (measured:
    2x to 10x slower at 32^3 and below); duplicating a row of at most ``limit`` elements is then cheaper.
    """
    return x.shape[0] == 1 and x.device.type == "cpu" and x.numel() <= limit


def pad_lone_row(x: Tensor) -> Tensor:
    """``x`` with its only row twice where :func:`lone_row_is_slow`, else ``x``; the caller keeps the first row.

    Exact: no layer of this package mixes rows of a batch.
    """
    return torch.cat([x, x], dim=0) if lone_row_is_slow(x) else x


def runs_eagerly() -> bool:
    """Whether shapes and values may steer the computation: True in eager mode and TorchScript, False while tracing,
    exporting or compiling, where a choice made for the example input would be frozen into the graph."""
    if torch.jit.is_scripting():
        return True
    else:
        return not torch.jit.is_tracing() and not torch.compiler.is_compiling()


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` (B, C, ...) lies in memory with the channels innermost."""
    if x.ndim == 5:
        return x.is_contiguous(memory_format=torch.channels_last_3d)
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


def to_preferred_layout(x: Tensor) -> Tensor:
    """``x`` (B, C, ...) in the memory layout that is fastest on its device; the values are the same.

    On a CPU that is channels-last: 3x3x3 convolutions at full resolution take half the time (forward and backward)
    and linear up-sampling a fifth.
    """
    if x.device.type != "cpu" or not runs_eagerly():
        return x
    if x.ndim == 5:
        return x.contiguous(memory_format=torch.channels_last_3d)
    return x.contiguous(memory_format=torch.channels_last)


def stack_modalities(maps: List[Tensor], like: Tensor, joined: bool) -> Tensor:  # noqa: UP006
    """Maps (B, C, ...), one per modality -> (B, M, C, ...), in the layout of ``like``.

    Args:
        maps: one map per modality; a zero may be expanded to one.
        like: one of the maps that has memory of its own.
        joined: whether the concatenation ``flatten(1, 2)`` is what will be read (it becomes a view), or each
            modality's own map (which then lies in one piece).
    """
    if not runs_eagerly() or not is_channels_last(like):
        return torch.stack(maps, dim=1)
    inner: List[Tensor] = []  # noqa: UP006
    for x in maps:
        inner.append(x.movedim(1, -1))
    if joined:
        return torch.stack(inner, dim=-2).movedim(-2, 1).movedim(-1, 2)
    return torch.stack(inner, dim=1).movedim(-1, 2)


def reflect_pad(x: Tensor) -> Tensor:
    """One voxel of reflection on every side; an axis of a single voxel has nothing to reflect and is repeated."""
    axes = x.ndim - 2
    if min(x.shape[2:]) > 1:
        return F.pad(x, [1, 1] * axes, mode="reflect")
    for axis in range(axes):
        n = x.shape[axis + 2]
        before = x.narrow(axis + 2, min(1, n - 1), 1)
        after = x.narrow(axis + 2, max(n - 2, 0), 1)
        x = torch.cat([before, x, after], dim=axis + 2)
    return x


def zero_pad(x: Tensor) -> Tensor:
    """One voxel of zeros on every side."""
    return F.pad(x, [1, 1] * (x.ndim - 2))


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    stride: int,
    dilation: int,
    groups: int,
) -> Tensor:
    if x.ndim == 5:
        return F.conv3d(x, weight, bias, [stride] * 3, [0] * 3, [dilation] * 3, groups)
    return F.conv2d(x, weight, bias, [stride] * 2, [0] * 2, [dilation] * 2, groups)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],  # noqa: UP045
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """Unpadded 2-D or 3-D convolution with a 1x1 or 3x3 kernel that keeps a CPU busy.

    oneDNN's kernels are made for many channels and many rows; these networks have few of both. Each rearrangement
    computes the same sums (measured on one AVX-512 thread, channels-last layout):

    - A 1x1 kernel leaves oneDNN on one thread or with one small row (2x to 15x slower): planes become rows of a 2-D
      convolution or, in 2-D, a dilation is declared, which means nothing for it.
    - Up to four input channels, 3-D (4x to 8x): three neighbouring planes become channels of a 2-D convolution.
    - One small row leaves oneDNN (2x to 4x slower): it is cut along its first axis into two overlapping rows.
    - Fewer output channels than a vector register has lanes (1.4x to 1.7x forward): see :func:`_fill_lanes`.
    """
    if x.device.type != "cpu" or not runs_eagerly() or not _single_precision(x):
        return _convolve(x, weight, bias, stride, 1, groups)
    kernel = weight.shape[2]
    if kernel == 1 and x.ndim == 5 and stride == 1:
        planes = x.movedim(1, -1).flatten(0, 1).movedim(-1, 1)
        return F.conv2d(planes, weight.flatten(3), bias, groups=groups).unflatten(0, [x.shape[0], -1]).movedim(2, 1)
    if kernel == 1:
        return _convolve(x, weight, bias, stride, 2, groups)
    if groups > 1:
        return _convolve(x, weight, bias, stride, 1, groups)
    if x.ndim == 5 and stride == 1 and x.shape[1] <= 4:
        return _planes_as_channels(x, weight, bias)
    # the limit is PyTorch's own (ConvParams::use_mkldnn): elements without the last axis of a volume
    small = x.numel() // (x.shape[-1] if x.ndim == 5 else 1) <= 20480
    if x.shape[0] == 1 and small:
        size = (x.shape[2] - kernel) // stride + 1
        half = (size + 1) // 2
        rows = (half - 1) * stride + kernel
        second = x.narrow(2, (size - half) * stride, rows)
        y = _fill_lanes(to_preferred_layout(torch.cat([x.narrow(2, 0, rows), second])), weight, bias, stride)
        return torch.cat([y[:1], y[1:].narrow(2, 2 * half - size, size - half)], dim=2)
    return _fill_lanes(x, weight, bias, stride)


def _planes_as_channels(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:  # noqa: UP045
    """3x3x3 convolution as a 2-D one over planes, each with its two neighbours as further channels."""
    planes = x.shape[2] - 2
    inner = x.movedim(1, -1)
    stacked = torch.cat([inner.narrow(1, k, planes) for k in range(3)], dim=-1).flatten(0, 1).movedim(-1, 1)
    flat = weight.movedim(2, 1).flatten(1, 2)  # (C_out, 3 * C_in, 3, 3), planes outermost
    return _fill_lanes(stacked, flat, bias, 1).unflatten(0, [-1, planes]).movedim(2, 1)


def _fill_lanes(x: Tensor, weight: Tensor, bias: Optional[Tensor], stride: int) -> Tensor:  # noqa: UP045
    """Convolution that computes neighbouring positions of the last axis as further output channels.

    With 8 output channels half of a 16-lane register would be idle. A kernel widened by one and shifted by 0 or 1
    gives two positions at once as 2 x 8 channels, at stride two; in memory their result is the result asked for.
    """
    out = weight.shape[0]
    together = min(_vector_lanes() // out, 4)
    # backward gains nothing at 8 input channels
    pays = together > 1 and stride == 1 and (not torch.is_grad_enabled() or x.shape[1] >= 16 or x.shape[1] * out <= 96)
    if not pays or (x.shape[-1] - weight.shape[-1] + 1) % together != 0:
        return _convolve(x, weight, bias, stride, 1, 1)
    wide = torch.cat([F.pad(weight, [k, together - 1 - k]) for k in range(together)])
    if bias is not None:
        bias = bias.repeat(together)
    if x.ndim == 5:
        y = F.conv3d(x, wide, bias, [1, 1, together])
    else:
        y = F.conv2d(x, wide, bias, [1, together])
    return y.movedim(1, -1).unflatten(-1, [together, out]).flatten(-3, -2).movedim(-1, 1)


def _single_precision(x: Tensor) -> bool:
    """Whether the convolution will be computed in float32 or float64, for which the choices here were measured."""
    if not torch.jit.is_scripting():
        if torch.is_autocast_enabled("cpu"):
            return False
    return x.dtype == torch.float32 or x.dtype == torch.float64


def _vector_lanes() -> int:
    """Float32 values in a register of this CPU."""
    if torch.jit.is_scripting():
        return 8
    else:
        return 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8


def norm_leaky(x: Tensor, slope: float = 0.2, eps: float = 1e-5, consume: bool = False) -> Tensor:
    """Instance normalisation without parameters, then LeakyReLU; a channel of one voxel becomes zero.

    With ``consume`` nobody needs ``x`` afterwards: without gradients the result takes its memory.

    On a CPU PyTorch's own instance norm copies channels-last maps there and back, and its channels-last group and
    batch norm add half a million float32 one after the other (off by 1e-4, which the goldens ``*_fwd80_f32`` notice).
    :class:`InstanceNormLeaky` is twice as fast and keeps one map less for backward.
    """
    if x.device.type != "cpu" or not runs_eagerly():
        return F.leaky_relu_(torch.instance_norm(x, None, None, None, None, True, 0.0, eps, False), slope)
    if not torch.jit.is_scripting():
        if is_channels_last(x):
            return InstanceNormLeaky.apply(x, slope, eps, consume and not torch.is_grad_enabled())
    return to_preferred_layout(F.leaky_relu_(torch.group_norm(x.contiguous(), x.shape[1], None, None, eps), slope))


class InstanceNormLeaky(torch.autograd.Function):
    """Instance norm and LeakyReLU of a channels-last map, remembering only the result.

    Memory is read as (rows, last axis x channels): sums over the first axis are contiguous, fast and precise (many
    short sums instead of one long one). Backward recovers the normalised map from the result, as LeakyReLU with a
    positive slope can be inverted.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, eps: float, in_place: bool) -> Tensor:
        flat, repeat = _as_rows(x)
        mean = _channel_means(flat, repeat)
        y = flat.sub_(mean) if in_place else flat - mean
        variance = _channel_means(y, repeat, y)
        scale = (variance + eps).rsqrt_()
        y = F.leaky_relu_(y.mul_(scale), slope)
        result = _as_map(y, x)
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


def _as_rows(x: Tensor) -> tuple[Tensor, int]:
    """A channels-last map (B, C, ...) as (B, rows, last axis x C), at least float32, and the last axis's size."""
    inner = x.movedim(1, -1).flatten(-2).flatten(1, -2)
    return inner.to(torch.promote_types(x.dtype, torch.float32)), x.shape[-1]


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    shape = [like.shape[0], *like.shape[2:], like.shape[1]]
    return rows.to(like.dtype).reshape(shape).movedim(-1, 1)


def _channel_means(rows: Tensor, repeat: int, factor: Tensor | None = None) -> Tensor:
    """Mean of ``rows`` (times ``factor``) per sample and channel, repeated along the last axis: (B, 1, last axis x C).

    Products are made a few rows at a time, so that they stay in the cache (2x faster at 80^3).
    """
    if factor is None:
        sums = rows.sum(dim=1)
    else:
        few = max(1, 2**16 // rows[:, 0].numel())
        pairs = zip(rows.split(few, dim=1), factor.split(few, dim=1), strict=True)
        sums = torch.stack([(a * b).sum(dim=1) for a, b in pairs]).sum(dim=0)
    means = (sums / rows.shape[1]).unflatten(1, (repeat, -1)).mean(dim=1)
    return means.repeat(1, repeat)[:, None]


def upsample(x: Tensor, factor: int) -> Tensor:
    """Linear interpolation by ``factor`` with aligned corners, as the published decoders do."""
    mode = "trilinear" if x.ndim == 5 else "bilinear"
    return F.interpolate(x, scale_factor=float(factor), mode=mode, align_corners=True)
