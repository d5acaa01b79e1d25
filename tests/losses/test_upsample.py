from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from medmap_monai.losses.upsample import upsample_linear


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 3, 4, 5, 6), (8, 10, 12)),
        ((1, 2, 5, 5, 5), (80, 40, 5)),
        ((2, 4, 1, 3), (7, 7)),
        ((1, 1, 4, 4), (4, 9)),
        ((2, 3, 6, 6), (3, 6)),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_it_is_linear_interpolation_with_aligned_corners(
    shape: tuple[int, ...], size: tuple[int, ...], channels_last: bool
) -> None:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last_3d if len(size) == 3 else torch.channels_last)
    maps.requires_grad_()
    mode = "trilinear" if len(size) == 3 else "bilinear"
    expected = interpolate(maps, size=size, mode=mode, align_corners=True)
    got = upsample_linear(maps, size)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (first,) = torch.autograd.grad((expected * weight).sum(), maps)
    (second,) = torch.autograd.grad((got * weight).sum(), maps)
    torch.testing.assert_close(second, first)


def test_maps_of_the_right_size_are_returned_as_they_are() -> None:
    maps = torch.rand(1, 2, 4, 4)
    assert upsample_linear(maps, (4, 4)) is maps


def test_autocast_does_not_reduce_the_precision() -> None:
    maps = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = upsample_linear(maps, (8, 8))
    torch.testing.assert_close(got, upsample_linear(maps, (8, 8)), rtol=0, atol=0)
