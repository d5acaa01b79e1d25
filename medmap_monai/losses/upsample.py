"""Linear up-sampling of maps to the label's size, the one convention that every loss of this package shares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def upsample_linear(maps: Tensor, size: Sequence[int]) -> Tensor:
    """``maps`` (B, C, ...) bi- or trilinearly at ``size`` with aligned corners; unchanged where the size fits.

    The same as :func:`torch.nn.functional.interpolate`, but one matrix product per axis: half the time on a CPU
    (forward and backward, measured at 80^3), and deterministic on a GPU, where interpolate's backward is not.
    """
    if list(maps.shape[2:]) == list(size):
        return maps
    with torch.autocast(maps.device.type, enabled=False):
        for axis in range(maps.ndim - 1, 1, -1):
            maps = _stretch(maps, axis, size[axis - 2])
    return maps


def _stretch(maps: Tensor, axis: int, size: int) -> Tensor:
    """``maps`` at ``size`` along one spatial axis."""
    if maps.shape[axis] == size:
        return maps
    weights = _weights(maps.shape[axis], size, maps)
    if axis == maps.ndim - 1:
        return maps @ weights.T
    behind = list(maps.shape[axis + 1 :])
    return torch.matmul(weights, maps.flatten(axis + 1)).reshape([*maps.shape[:axis], size, *behind])


def _weights(length: int, size: int, like: Tensor) -> Tensor:
    """Interpolation weights (size, length) of one axis."""
    unit = torch.eye(length, dtype=like.dtype, device=like.device)
    return interpolate(unit.unsqueeze(1), size=size, mode="linear", align_corners=True).squeeze(1).T
