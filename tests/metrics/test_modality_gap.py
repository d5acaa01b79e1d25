"""Modality gap measures: known values, invariances, edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medmap_monai.metrics.modality_gap import centroid_distance, linear_cka, modality_gap, voxel_distance


def normal(n: int, c: int, seed: int) -> torch.Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cka_of_equal_rotated_scaled_and_shifted_features_is_one() -> None:
    x = normal(50, 4, 0)
    rotation = torch.linalg.qr(normal(4, 4, 1)).Q
    for y in (x, 3.0 * x, x @ rotation, x + 5.0):
        assert linear_cka(x, y) == pytest.approx(1.0, abs=1e-10)


def test_cka_by_its_kernel_definition() -> None:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with centred linear kernels."""
    x, y = normal(30, 4, 2), normal(30, 6, 3) + normal(30, 4, 2) @ normal(4, 6, 4)
    centre = np.eye(30) - 1 / 30
    k, l_ = (centre @ (v @ v.T).numpy() @ centre for v in (x, y))
    expected = np.trace(k @ l_) / math.sqrt(np.trace(k @ k) * np.trace(l_ @ l_))
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-10)


def test_cka_of_uncorrelated_features_is_zero_and_of_constant_ones_nan() -> None:
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    y = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert linear_cka(x, y) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(linear_cka(x, torch.ones(4, 2)))


def test_centroid_distance() -> None:
    x, y = torch.tensor([[2.0, 0.0], [5.0, 0.0]]), torch.tensor([[0.0, 0.1], [0.0, 9.0]])
    assert centroid_distance(x, y) == pytest.approx(math.sqrt(2))
    assert centroid_distance(x, 7 * x) == pytest.approx(0.0, abs=1e-12)
    assert centroid_distance(x, -x) == pytest.approx(2.0)
    assert centroid_distance(torch.zeros(2, 2), x) == pytest.approx(1.0)  # zero vectors stay zero


def test_voxel_distance() -> None:
    x = normal(5000, 3, 5)
    assert voxel_distance(x, x) == 0.0
    assert voxel_distance(x, normal(5000, 3, 6)) == pytest.approx(1.0, abs=0.05)
    assert voxel_distance(x, -x) == pytest.approx(2.0, abs=1e-2)
    shifted = voxel_distance(x, x + 1.0)
    assert shifted == pytest.approx(3.0 / (2 * float(x.var(0, correction=0).sum())))
    assert voxel_distance(4 * x, 4 * x + 4.0) == pytest.approx(shifted)
    assert math.isnan(voxel_distance(torch.ones(3, 2), torch.ones(3, 2)))


def test_modality_gap_is_the_mean_over_pairs() -> None:
    features = torch.stack([normal(40, 3, seed) + seed for seed in range(3)])
    pairs = [(features[0], features[1]), (features[0], features[2]), (features[1], features[2])]
    gap = modality_gap(features)
    assert gap.cka == pytest.approx(np.mean([linear_cka(*p) for p in pairs]))
    assert gap.centroid_distance == pytest.approx(np.mean([centroid_distance(*p) for p in pairs]))
    assert gap.voxel_distance == pytest.approx(np.mean([voxel_distance(*p) for p in pairs]))


@pytest.mark.parametrize("shape", [(1, 5, 3), (5, 3), (0, 5, 3)])
def test_modality_gap_needs_two_modalities(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="M >= 2"):
        modality_gap(torch.zeros(shape))


def test_features_must_match() -> None:
    with pytest.raises(ValueError, match="same samples"):
        linear_cka(torch.zeros(4, 2), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="same samples"):
        voxel_distance(torch.zeros(4, 2), torch.zeros(4, 3))
