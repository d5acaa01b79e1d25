"""How much of a feature map is said by the place alone: what aligned features may agree on without looking."""

from __future__ import annotations

import torch
from torch import Tensor


def position_share(features: Tensor) -> float:
    """Share of the variance of features (N, C, ...) of N cases that the position in the window explains, 0 to 1.

    Features are scaled to unit length first. 1: every case has the same map, so that nothing depends on the image; for
    independent features it is about 1 / N, so use a few dozen cases. 0 for constant features. Source: ours.

    Raises:
        ValueError: when the features are not (N >= 2, C, at least one position).
    """
    if features.ndim < 3 or features.shape[0] < 2 or features[0, 0].numel() == 0:
        raise ValueError(f"features must be (N >= 2 cases, C, positions...), got {list(features.shape)}")
    unit = torch.nn.functional.normalize(features.double().flatten(2), dim=1)
    centred = unit - unit.mean(dim=(0, 2), keepdim=True)
    total = centred.square().sum()
    return float(centred.mean(dim=0).square().sum() * len(unit) / total) if total > 0 else 0.0
