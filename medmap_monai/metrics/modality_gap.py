"""The modality gap: how far apart the features of different modalities lie."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor


class ModalityGap(NamedTuple):
    """Measures of one level, each the mean over all pairs of modalities.

    cka: linear CKA (Kornblith et al., 2019), 1 = the same up to rotation and scale, 0 = unrelated.
    centroid_distance: Euclidean distance of the means of unit-length features, 0 = same centre, at most 2.
    voxel_distance: E|f_i - f_j|^2 / (var_i + var_j), 0 = equal voxel by voxel, 1 = unrelated with equal means.
    """

    cka: float
    centroid_distance: float
    voxel_distance: float


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two features of the same n samples.

    Args:
        x: (n, C).
        y: (n, D).

    Returns:
        a value in 0..1; NaN when a feature is constant.

    Raises:
        ValueError: when the shapes do not fit.
    """
    _check_pair(x, y, same_width=False)
    x, y = _centred(x), _centred(y)
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return float((x.T @ y).square().sum() / scale) if scale > 0 else float("nan")


def centroid_distance(x: Tensor, y: Tensor) -> float:
    """Distance of the means of unit-length feature vectors (n, C); zero vectors stay zero."""
    _check_pair(x, y, same_width=True)
    return float((_unit(x).mean(dim=0) - _unit(y).mean(dim=0)).norm())


def voxel_distance(x: Tensor, y: Tensor) -> float:
    """E|x - y|^2 / (var x + var y) over n matching positions (n, C); free of scale; NaN when both are constant."""
    _check_pair(x, y, same_width=True)
    x, y = x.double(), y.double()
    spread = x.var(dim=0, correction=0).sum() + y.var(dim=0, correction=0).sum()
    return float((x - y).square().sum(dim=1).mean() / spread) if spread > 0 else float("nan")


def modality_gap(features: Tensor) -> ModalityGap:
    """The gap of one level from features (M, n, C): modality m at the same n positions for all m.

    Raises:
        ValueError: for fewer than two modalities or another number of dimensions.
    """
    if features.ndim != 3 or features.shape[0] < 2:
        raise ValueError(f"features must be (M >= 2, n, C), got {list(features.shape)}")
    pairs = list(combinations(range(features.shape[0]), 2))

    def mean(measure: Callable[[Tensor, Tensor], float]) -> float:
        return sum(measure(features[i], features[j]) for i, j in pairs) / len(pairs)

    return ModalityGap(mean(linear_cka), mean(centroid_distance), mean(voxel_distance))


def _check_pair(x: Tensor, y: Tensor, same_width: bool) -> None:
    fits = x.ndim == 2 and y.ndim == 2 and x.shape[0] == y.shape[0] and (not same_width or x.shape[1] == y.shape[1])
    if not fits or x.shape[0] == 0:
        raise ValueError(f"features of the same samples are needed, got {list(x.shape)} and {list(y.shape)}")


def _centred(x: Tensor) -> Tensor:
    x = x.double()
    return x - x.mean(dim=0)


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x.double(), dim=1)
