"""Collapse checks that belong beside any modality gap: features can agree because they became constant."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(features: Tensor) -> float:
    """Effective rank of features (n, C): exp of the entropy of the normalised singular values, after centring.

    1 when all variation lies along one direction, min(n, C) when it is spread evenly, 0 for constant features.
    Source: Roy and Vetterli, 2007.

    Raises:
        ValueError: when the features are not (n, C) with n >= 1.
    """
    _check(features)
    values = torch.linalg.svdvals(_covariance_root(features))
    total = values.sum()
    if total <= 0:
        return 0.0
    share = values[values > 0] / total
    return float(torch.exp(-(share * share.log()).sum()))


def spatial_sd(features: Tensor) -> float:
    """Standard deviation over the n positions, root mean square over the channels of features (n, C)."""
    _check(features)
    return float(features.double().var(dim=0, correction=0).mean().sqrt())


def _covariance_root(features: Tensor) -> Tensor:
    """A (min(n, C), C) matrix with the singular values of the centred features; a QR step keeps the SVD small."""
    centred = features.double() - features.double().mean(dim=0)
    return torch.linalg.qr(centred, mode="r").R if centred.shape[0] > centred.shape[1] else centred


def _check(features: Tensor) -> None:
    if features.ndim != 2 or features.shape[0] == 0:
        raise ValueError(f"features must be (n >= 1, C), got {list(features.shape)}")
