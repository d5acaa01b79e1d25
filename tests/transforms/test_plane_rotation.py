from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from medmap_monai.transforms.plane_rotation import RandPlaneRotation, RandPlaneRotationd, rotation_index


@pytest.mark.parametrize("degrees", [-10, -3, 0, 1, 9])
@pytest.mark.parametrize("plane", [(0, 1), (0, 2), (1, 2)])
def test_equals_scipy(degrees, plane):
    volume = np.random.default_rng(0).normal(size=(2, 9, 12, 7)).astype(np.float32)
    rotation = RandPlaneRotation()
    rotation._angle, rotation._plane = degrees, plane
    result = rotation(torch.from_numpy(volume), fill=-1.0, randomize=False)
    axes = tuple(a + 1 for a in plane)
    expected = scipy.ndimage.rotate(volume, degrees, axes=axes, reshape=False, order=0, mode="constant", cval=-1.0)
    np.testing.assert_array_equal(result, expected)


def test_slices_turn_in_their_plane():
    image = torch.rand(1, 8, 6)
    rotation = RandPlaneRotation((5, 6)).set_random_state(0)
    expected = scipy.ndimage.rotate(image[0].numpy(), 5, reshape=False, order=0, cval=0.0)
    np.testing.assert_array_equal(rotation(image)[0], expected)


def test_every_angle_and_plane_occurs():
    rotation = RandPlaneRotation().set_random_state(0)
    drawn = set()
    for _ in range(600):
        rotation.randomize(3)
        drawn.add((rotation._angle, rotation._plane))
    assert {angle for angle, _ in drawn} == set(range(-10, 10))
    assert {plane for _, plane in drawn} == {(0, 1), (0, 2), (1, 2)}


def test_image_and_label_turn_together_and_labels_get_background():
    label = torch.ones(1, 8, 8, 8, dtype=torch.uint8)
    image = torch.ones(3, 8, 8, 8)
    image[1] = 0
    item = {"image": image, "label": label, "present_mask": torch.tensor([True, False, True])}
    transform = RandPlaneRotationd(("image", "label"), fill=(-1.0, 0), degrees=(9, 10)).set_random_state(1)
    out = transform(item)
    assert set(out["label"].unique().tolist()) == {0, 1}
    assert out["label"].dtype == torch.uint8
    assert torch.equal(out["image"][0] == 1, out["label"][0] == 1)
    assert set(out["image"][2].unique().tolist()) == {-1.0, 1.0}
    assert not out["image"][1].any()
    assert image[0].all()  # the input, which may be cached, is as it was
    assert label.all()


def test_signed_labels_never_become_minus_one():
    label = torch.ones(1, 8, 8, dtype=torch.int64)
    out = RandPlaneRotationd("label", degrees=(9, 10)).set_random_state(0)({"label": label})
    assert set(out["label"].unique().tolist()) == {0, 1}


def test_index_map_marks_outside():
    index = rotation_index((6, 6), 9)
    assert index.min() == -1
    assert index.max() < 36


def test_ill_arguments():
    with pytest.raises(ValueError, match="degrees"):
        RandPlaneRotation((5, 5))
