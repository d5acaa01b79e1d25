"""Position share: 1 where every case has the same map, about 1 / N where nothing is shared."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.metrics.position_share import position_share


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_same_map_in_every_case() -> None:
    assert position_share(random(1, 5, 3, 3, 3).expand(4, -1, -1, -1, -1)) == pytest.approx(1.0)


def test_independent_features() -> None:
    assert position_share(random(25, 16, 40)) == pytest.approx(1 / 25, abs=0.01)


def test_scale_does_not_matter_and_a_mixture_lies_between() -> None:
    noise, shared = random(20, 8, 30), torch.randn(1, 8, 30, generator=torch.Generator().manual_seed(1))
    value = position_share(shared + noise)
    assert 0.3 < value < 0.7
    size = torch.rand(20, 1, 30, generator=torch.Generator().manual_seed(2)) + 0.1
    assert position_share((shared + noise) * size) == pytest.approx(value)


def test_constant_features() -> None:
    assert position_share(torch.ones(3, 4, 5)) == 0.0


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4), (3, 4, 0)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="N >= 2 cases"):
        position_share(torch.ones(shape))
