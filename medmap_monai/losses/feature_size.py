"""The size of features, so that distances between them do not depend on it."""

from __future__ import annotations

from torch import Tensor

from medmap_monai.losses.label_maps import full_precision


def root_mean_square(features: Tensor, eps: float = 1e-6) -> Tensor:
    """Root mean square over channels and positions of each sample: (B, C, ...) -> (B, 1, ...), at least ``eps``."""
    squares = full_precision(features).square().flatten(1).mean(1).sqrt().clamp_min(eps)
    return squares.reshape(-1, *[1] * (features.ndim - 1))
