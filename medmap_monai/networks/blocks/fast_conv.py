"""Padding, convolution and up-sampling of the published backbones, arranged so that they keep a CPU busy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medmap_monai.networks.blocks.backend import prefers_channels_last, to_preferred_layout


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
    bias: Tensor | None,
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
    bias: Tensor | None,
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
    if not prefers_channels_last(x):
        return _convolve(x, weight, bias, stride, 1, groups)
    x = to_preferred_layout(x)
    if not _single_precision(x):
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


def _planes_as_channels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x3x3 convolution as a 2-D one over planes, each with its two neighbours as further channels."""
    planes = x.shape[2] - 2
    inner = x.movedim(1, -1)
    stacked = torch.cat([inner.narrow(1, k, planes) for k in range(3)], dim=-1).flatten(0, 1).movedim(-1, 1)
    flat = weight.movedim(2, 1).flatten(1, 2)  # (C_out, 3 * C_in, 3, 3), planes outermost
    return _fill_lanes(stacked, flat, bias, 1).unflatten(0, [-1, planes]).movedim(2, 1)


def _fill_lanes(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
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


def upsample(x: Tensor, factor: int) -> Tensor:
    """Linear interpolation by ``factor`` with aligned corners, as the published decoders do."""
    mode = "trilinear" if x.ndim == 5 else "bilinear"
    return F.interpolate(x, scale_factor=float(factor), mode=mode, align_corners=True)
