"""The layout policy computes what the plain PyTorch functions compute."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medmap_monai.networks.blocks.backend import (
    dense_path,
    groups_encoders,
    is_channels_last,
    selects_rows,
    stack_modalities,
    to_preferred_layout,
)
from medmap_monai.networks.blocks.fast_conv import convolve, reflect_pad, upsample
from medmap_monai.networks.blocks.norm_leaky import norm_leaky
from medmap_monai.utils.fixed_course import fixed_course


def volume(*shape: int, last: bool = False) -> Tensor:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return to_preferred_layout(x) if last else x


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("shape", "out", "kernel", "stride", "groups"),
    [
        ((1, 4, 7, 6, 5), 8, 3, 1, 1),  # one small row: cut in two, odd number of planes
        ((1, 4, 8, 6, 5), 8, 3, 2, 1),
        ((1, 4, 3, 3, 3), 8, 3, 1, 1),  # a single output plane
        ((2, 4, 8, 6, 5), 8, 3, 2, 1),
        ((1, 4, 8, 6, 5), 8, 1, 1, 1),
        ((3, 4, 8, 6, 5), 8, 1, 1, 2),
        ((2, 4, 8, 6, 5), 8, 1, 2, 1),
        ((1, 4, 5, 6, 5), 4, 3, 1, 4),
        ((1, 4, 9, 6), 8, 3, 1, 1),
        ((1, 4, 9, 6), 8, 1, 1, 1),
        ((1, 6, 32, 64, 10), 2, 3, 1, 1),  # above the limit of one small row; 8 positions at a time
        ((2, 16, 5, 6, 10), 8, 3, 1, 1),  # two positions at a time
        ((2, 16, 5, 6, 9), 8, 3, 1, 1),  # an odd number of them
        ((2, 16, 6, 10), 8, 3, 1, 1),
        ((1, 16, 5, 6, 10), 8, 3, 1, 1),  # cut in two and two at a time
        ((1, 1, 5, 6, 10), 8, 3, 1, 1),  # planes as channels
        ((3, 2, 5, 6, 7), 2, 3, 1, 1),
        ((3, 3, 5, 6, 10), 32, 3, 1, 1),
        ((1, 2, 5, 7, 9), 4, 3, 2, 1),
    ],
)
def test_convolve_equals_torch(
    shape: tuple[int, ...], out: int, kernel: int, stride: int, groups: int, last: bool
) -> None:
    dims = len(shape) - 2
    x = volume(*shape, last=last).requires_grad_(True)
    weight = volume(out, shape[1] // groups, *[kernel] * dims).requires_grad_(True)
    bias = volume(out).requires_grad_(True)
    plain = F.conv3d if dims == 3 else F.conv2d
    expected = plain(x, weight, bias, stride=stride, groups=groups)
    result = convolve(x, weight, bias, stride, groups)
    torch.testing.assert_close(result, expected)
    with torch.no_grad():
        torch.testing.assert_close(convolve(x, weight, bias, stride, groups), expected)
        without = plain(x, weight, stride=stride, groups=groups)
        torch.testing.assert_close(convolve(x, weight, None, stride, groups), without)
    target = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad((result * target).sum(), [x, weight, bias]),
        torch.autograd.grad((expected * target).sum(), [x, weight, bias]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 4, 5, 6), (3, 2, 4, 4, 4), (2, 3, 6, 5), (1, 4, 5, 5, 5)])
def test_norm_leaky_equals_torch(shape: tuple[int, ...], last: bool) -> None:
    x = (volume(*shape, last=last) + 3).requires_grad_(True)
    result, expected = norm_leaky(x), F.leaky_relu(F.instance_norm(x), 0.2)
    torch.testing.assert_close(result, expected)
    assert is_channels_last(result)
    target = torch.randn_like(expected)  # not channels-last, as gradients may be
    (a,) = torch.autograd.grad((result * target).sum(), [x])
    (b,) = torch.autograd.grad((expected * target).sum(), [x])
    torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(norm_leaky, (x,))


@pytest.mark.parametrize("shape", [(1, 3, 4, 5, 6), (3, 2, 4, 4, 4), (2, 3, 6, 5)])
def test_dense_norm_leaky_equals_torch(shape: tuple[int, ...]) -> None:
    x = (volume(*shape) + 3).requires_grad_(True)
    with dense_path():
        result = norm_leaky(x)
        assert torch.autograd.gradcheck(norm_leaky, (x,))
        half = norm_leaky(x.detach().to(torch.bfloat16))
    expected = F.leaky_relu(F.instance_norm(x), 0.2)
    torch.testing.assert_close(result, expected)
    target = torch.randn_like(expected)
    (a,) = torch.autograd.grad((result * target).sum(), [x])
    (b,) = torch.autograd.grad((expected * target).sum(), [x])
    torch.testing.assert_close(a, b)
    assert half.dtype == torch.bfloat16
    assert (half.double() - expected).abs().max() < 0.1


def test_decisions_follow_the_device_unless_they_are_remembered() -> None:
    here, elsewhere = torch.zeros(1), torch.zeros(1, device="meta")
    assert selects_rows(here)
    assert not selects_rows(elsewhere)
    with fixed_course():  # a recorded step knows the answers
        assert selects_rows(elsewhere)
    with dense_path():
        assert not selects_rows(here)
        with dense_path(False):  # encoders in one stack would compute every row
            assert selects_rows(elsewhere)
            assert not groups_encoders(elsewhere)
        assert groups_encoders(here)
    assert selects_rows(here)
    assert groups_encoders(elsewhere)
    assert not groups_encoders(here)


def test_norm_leaky_is_precise_on_a_large_volume() -> None:
    x = to_preferred_layout(torch.randn(1, 2, 80, 80, 80, generator=torch.Generator().manual_seed(0)) + 3)
    assert (norm_leaky(x, 1.0) - F.instance_norm(x.double())).abs().max() < 5e-6


def test_norm_leaky_of_one_voxel_is_zero() -> None:
    assert not norm_leaky(torch.rand(2, 3, 1, 1, 1)).any()


def test_norm_leaky_of_half_precision_is_computed_in_float32() -> None:
    x = to_preferred_layout(torch.randn(1, 2, 16, 16, 16).to(torch.bfloat16))
    result = norm_leaky(x)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, norm_leaky(x.float()).to(torch.bfloat16))


@pytest.mark.parametrize("shape", [(1, 2, 2, 3, 4), (2, 1, 5, 2)])
def test_reflect_pad_equals_torch(shape: tuple[int, ...]) -> None:
    x = volume(*shape)
    assert torch.equal(reflect_pad(x), F.pad(x, [1, 1] * (len(shape) - 2), mode="reflect"))


def test_reflect_pad_repeats_an_axis_of_one_voxel() -> None:
    x = volume(1, 1, 1, 3)
    expected = F.pad(x, [1, 1, 0, 0], mode="reflect").repeat(1, 1, 3, 1)
    assert torch.equal(reflect_pad(x), expected)


@pytest.mark.parametrize("shape", [(1, 2, 4, 3, 5), (2, 3, 4, 5), (1, 1, 1, 2, 2)])
def test_upsample_equals_interpolate(shape: tuple[int, ...]) -> None:
    mode = "trilinear" if len(shape) == 5 else "bilinear"
    for x in (volume(*shape), volume(*shape, last=True)):
        torch.testing.assert_close(
            upsample(x, 2), F.interpolate(x, scale_factor=2, mode=mode, align_corners=True), atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize("last", [False, True])
def test_stacked_modalities_lie_as_their_maps_do(last: bool) -> None:
    maps = [volume(2, 3, 4, 5, 6, last=last) + m for m in range(4)]
    stacked = stack_modalities(maps, maps[0])
    assert torch.equal(stacked, torch.stack(maps, dim=1))
    assert all(is_channels_last(stacked[b : b + 1, m]) is last for b in range(2) for m in range(4))
