from __future__ import annotations

import pytest
import torch

from medmap_monai.transforms.intensity_jitter import RandIntensityJitter, RandIntensityJitterd


def _image():
    image = torch.rand(3, 6, 5, 4) + 1
    image[1] = 0
    image[:, :, 0] = 0
    return image


@pytest.mark.parametrize("per", ["channel", "slice"])
def test_is_affine_within_its_unit_and_within_bounds(per):
    x = torch.linspace(1, 2, 4).expand(2, 6, 5, 4).contiguous()
    y = RandIntensityJitter(per=per).set_random_state(0)(x)
    scale = (y[..., -1] - y[..., 0]) / (x[..., -1] - x[..., 0])
    shift = y[..., 0] - scale * x[..., 0]
    assert (scale - 1).abs().max() <= 0.1 + 1e-5
    assert shift.abs().max() <= 0.1 + 1e-4
    units = scale[:, :, 0].reshape(-1).round(decimals=4).unique().numel()
    assert units == (2 if per == "channel" else 12)
    assert (scale - scale[:, :, :1]).abs().max() < 1e-4  # one draw for the whole slice


def test_zeros_stay_zero_and_the_input_is_as_it_was():
    image = _image()
    before = image.clone()
    out = RandIntensityJitter().set_random_state(0)(image)
    assert torch.equal(out == 0, image == 0)
    assert torch.equal(image, before)
    assert not torch.equal(out, image)


def test_published_form_moves_background_but_no_absent_modality():
    image = _image()
    present = torch.tensor([True, False, True])
    transform = RandIntensityJitterd("image", per="slice", nonzero=False).set_random_state(0)
    out = transform({"image": image, "present_mask": present})["image"]
    assert out[0, :, 0].all()
    assert not out[1].any()


def test_prob_zero_changes_nothing():
    image = _image()
    assert torch.equal(RandIntensityJitter(prob=0.0)(image), image)


def test_unknown_unit_lists_the_allowed_ones():
    with pytest.raises(ValueError, match="slice"):
        RandIntensityJitter(per="voxel")
