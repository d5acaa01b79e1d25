from __future__ import annotations

import numpy as np
import pytest

from medmap_monai.engines.case_maps import cut_case, read_case_maps, write_case_maps


def _case(affine):
    rng = np.random.default_rng(0)
    image = np.zeros((2, 12, 10, 8), dtype=np.float32)
    image[0, 3:9, 2:8, 2:6] = rng.normal(5, 1, (6, 6, 4))
    reference = np.zeros((12, 10, 8), dtype=np.int16)
    reference[4, 5, 3] = 1
    reference[6, 5, 3] = 2
    return cut_case("c", ("t1", "t2"), image, reference, {"t1": reference * 0, "t1+t2": reference}, affine, ("bg", "x"))


def test_cut_scaled_and_read_back(tmp_path):
    maps = _case(np.diag([-1.0, -1.0, 2.0, 1.0]))  # voxel axes towards left, back and top: nothing to turn
    assert maps.reference.shape == (10, 10, 8)  # the foreground and two voxels around it, inside the volume
    assert maps.reference[4 - 1, 5, 3] == 1
    assert maps.image[1].max() == 0  # an absent modality stays empty
    assert (maps.image[0].min(), maps.image[0].max()) == (0, 255)
    write_case_maps(maps, tmp_path / "maps" / "c.npz")
    again = read_case_maps(tmp_path / "maps" / "c.npz")
    assert (again.case_id, again.modalities, again.spacing) == ("c", ("t1", "t2"), (1.0, 1.0, 2.0))
    assert list(again.predictions) == ["t1", "t1+t2"]
    np.testing.assert_array_equal(again.predictions["t1+t2"], maps.reference)


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_volumes_look_the_same_however_they_are_stored(flip):
    straight = _case(np.diag([-1.0, -1.0, 2.0, 1.0]))
    sizes = np.array([-1.0, -1.0, 2.0]) * flip
    stored = _case(np.diag([*sizes, 1.0]))
    turned = straight.reference[tuple(slice(None, None, f) for f in flip)]
    np.testing.assert_array_equal(stored.reference, turned)
    assert stored.spacing == (1.0, 1.0, 2.0)


def test_permuted_axes_take_their_spacing_along():
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 3.0, -1.0, -2.0, 1.0  # stored as top, left, back
    maps = _case(affine)
    assert maps.spacing == (1.0, 2.0, 3.0)
    assert maps.reference.shape == (10, 8, 10)
