"""Effective rank and spatial standard deviation."""

from __future__ import annotations

import math

import pytest
import torch

from medmap_monai.metrics.effective_rank import effective_rank, spatial_sd


def normal(n: int, c: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_known_ranks() -> None:
    assert effective_rank(torch.ones(10, 3)) == 0.0
    assert effective_rank(normal(50, 1) @ torch.ones(1, 6, dtype=torch.float64)) == pytest.approx(1.0, abs=1e-5)
    even = torch.cat([torch.eye(4), -torch.eye(4)])
    assert effective_rank(even) == pytest.approx(4.0)
    # singular values 3 : 1 -> entropy of (3/4, 1/4)
    uneven = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(uneven) == pytest.approx(expected)


def test_it_ignores_scale_shift_and_rotation() -> None:
    x = normal(30, 4) * torch.tensor([3.0, 1.0, 0.5, 0.1])
    rotation = torch.linalg.qr(normal(4, 4, 1)).Q
    for y in (10 * x, x + 7.0, x @ rotation):
        assert effective_rank(y) == pytest.approx(effective_rank(x), rel=1e-9)


@pytest.mark.parametrize("shape", [(40, 6), (4, 6)])
def test_it_uses_the_singular_values_of_the_centred_features(shape: tuple[int, int]) -> None:
    x = normal(*shape)
    values = torch.linalg.svdvals(x - x.mean(0))
    share = values / values.sum()
    share = share[share > 1e-14]
    assert effective_rank(x) == pytest.approx(float(torch.exp(-(share * share.log()).sum())), rel=1e-6)


def test_spatial_sd() -> None:
    assert spatial_sd(torch.full((5, 2), 3.0)) == 0.0
    assert spatial_sd(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(math.sqrt(0.5))
    assert spatial_sd(4 * normal(100, 3)) == pytest.approx(4 * spatial_sd(normal(100, 3)))


@pytest.mark.parametrize("measure", [effective_rank, spatial_sd])
def test_ill_shapes(measure: object) -> None:
    for shape in ((0, 3), (3,)):
        with pytest.raises(ValueError, match="n >= 1"):
            measure(torch.zeros(shape))  # type: ignore[operator]
