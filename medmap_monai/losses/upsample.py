"""Linear up-sampling of maps to the label's size, the one convention that every loss of this package shares."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import interpolate


def upsample_linear(maps: Tensor, size: Sequence[int]) -> Tensor:
    """``maps`` (B, C, ...) bi- or trilinearly at ``size`` with aligned corners; unchanged where the size fits."""
    if list(maps.shape[2:]) == list(size):
        return maps
    mode = "trilinear" if len(size) == 3 else "bilinear"
    return interpolate(maps, size=list(size), mode=mode, align_corners=True)
