"""The legacy protocol against numbers of the published scripts, and its rules where these are silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medmap_monai.transforms.union_crop import UnionCrop, UnionCropd, foreground_box, published_range
from medmap_monai.transforms.union_normalize import UnionNormalize, UnionNormalized

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "preprocessing.npz") as file:
        return dict(file)


def test_ranges_grow_to_128_as_published(golden):
    for (low, high), expected in zip(golden["crop/sup_128_in"], golden["crop/sup_128_out"], strict=True):
        assert published_range(int(low), int(high)) == tuple(expected)


def test_the_box_loses_the_last_plane_as_published(golden):
    for (low, high), expected in zip(golden["crop/box_case"], golden["crop/box_out"], strict=True):
        assert published_range(int(low), int(high) - 1) == tuple(expected)


def test_normalisation_is_the_published_one(golden):
    result = UnionNormalize()(torch.from_numpy(golden["norm/in"]))
    np.testing.assert_allclose(result, golden["norm/out"], atol=2e-6)


def test_absent_modalities_take_no_part_and_stay_zero(golden):
    image = torch.from_numpy(golden["norm/in"]).clone()
    expected = UnionNormalize()(image[[0, 2]])
    image[1] = 5.0  # would widen the foreground to everything
    image[3] = float("nan")
    present = torch.tensor([True, False, True, False])
    item = UnionNormalized("image")({"image": MetaTensor(image), "present_mask": present})
    assert isinstance(item["image"], MetaTensor)
    assert torch.equal(item["image"].as_tensor()[[0, 2]], expected)
    assert (item["image"][~present] == 0).all()


def test_constant_and_empty_modalities_stay_finite():
    image = torch.zeros(2, 4, 4, 4)
    assert not UnionNormalize()(image).any()
    image[0] = 3.0
    assert torch.isfinite(UnionNormalize()(image)).all()


def _volume(box, shape=(160, 140, 100)):
    image = torch.zeros(2, *shape)
    image[(0, *(slice(low, high) for low, high in box))] = 1.0
    return image


def test_crop_keeps_the_box_and_its_place_in_space():
    image = MetaTensor(_volume([(10, 150), (30, 120), (0, 100)]), affine=torch.diag(torch.tensor([2.0, 1, 1, 1])))
    label = MetaTensor(torch.arange(image[:1].numel()).reshape(image[:1].shape), affine=image.affine)
    item = UnionCropd(("image", "label"))({"image": image, "label": label})
    # 10..149 -> 139 planes; 30..119 (89 wide) -> 11..139 (128, 19 below and 20 above); 0..99 -> 0..129, cut at 100
    assert tuple(item["image"].shape) == (2, 139, 128, 100)
    assert item["image"].affine[:3, 3].tolist() == [20.0, 11.0, 0.0]
    assert torch.equal(item["label"].as_tensor(), label.as_tensor()[:, 10:149, 11:139])


def test_crop_of_an_empty_image_is_the_whole():
    assert tuple(UnionCrop()(torch.zeros(1, 5, 6, 7)).shape) == (1, 5, 6, 7)
    assert foreground_box(torch.zeros(1, 5)) is None


def test_crop_can_be_inverted():
    image = MetaTensor(_volume([(40, 60), (50, 60), (20, 30)], (80, 80, 50)))
    transform = UnionCropd("image", minimum=16)
    item = transform({"image": image})
    assert item["image"].shape[1:] != image.shape[1:]
    restored = transform.inverse(item)["image"]
    assert restored.shape == image.shape
    assert restored.sum() == item["image"].sum()
