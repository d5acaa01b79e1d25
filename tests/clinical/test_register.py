"""Rigid registration: known movements are found, figures tell good from bad, and what does not match is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medmap_monai.clinical.grid import field_problem
from medmap_monai.clinical.register import (
    POOR_BELOW,
    REFUSED_BELOW,
    Registration,
    RegistrationError,
    doubts,
    register_rigid,
)
from medmap_monai.clinical.volume import Volume, read_nifti
from tests.clinical.real_study import REAL, native_files
from tests.clinical.scanner import rigid

SHAPE = (30, 34, 22)
AFFINE = np.diag([5.0, 5.0, 6.0, 1.0])
AFFINE[:3, 3] = -75, -85, -66
POINTS = np.array([[x, y, z, 1.0] for x in (-50, 50) for y in (-50, 50) for z in (-40, 40)])


@cache
def anatomy() -> Volume:
    """A head of 14 cm with a skull and folds, nowhere symmetric, on a grid of 3 mm. Values are tissues' brightness."""
    axes = np.meshgrid(*(np.arange(-73.5, 75, 3) for _ in range(3)), indexing="ij")
    radius = np.sqrt((axes[0] / 56) ** 2 + (axes[1] / 68) ** 2 + (axes[2] / 60) ** 2)
    folds = gaussian_filter(np.random.default_rng(5).normal(size=radius.shape), 2.5)
    brain = np.where(folds > 0, 2.0, 3.0)
    brain[(axes[0] - 20) ** 2 + (axes[1] - 25) ** 2 + (axes[2] - 10) ** 2 < 20**2] = 4.0
    tissue = np.where(radius < 0.8, brain, np.where(radius < 0.9, 1.0, np.where(radius < 1, 5.0, 0.0)))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -73.5
    return Volume(tissue.astype(np.float32), affine)


def scan(brightness: tuple[float, ...], move: np.ndarray, noise: float = 0.0, scale: float = 1.0) -> Volume:
    """The head on a scanner's grid. ``brightness`` of the tissues 0 to 5; ``scale``: how wrong the voxel size is."""
    head = anatomy()
    values = np.interp(head.data, range(6), brightness).astype(np.float32)
    seen = Volume(values, head.affine).on_grid(SHAPE, AFFINE, np.linalg.inv(move))
    seen = seen + noise * np.random.default_rng(1).normal(size=seen.shape)
    affine = np.diag([scale, scale, scale, 1.0]) @ AFFINE
    return Volume(np.clip(seen, 0, None).astype(np.float32), affine)


T1 = (0.0, 30.0, 60.0, 100.0, 40.0, 180.0)
T2 = (0.0, 150.0, 90.0, 50.0, 140.0, 120.0)
STILL = np.eye(4)
MOVED = rigid((6, -4, 9), (8, -5, 11))


@cache
def matched(noise: float = 0.0) -> Registration:
    return register_rigid(scan(T1, STILL), scan(T2, MOVED, noise))


def test_a_known_movement_is_found() -> None:
    found = matched()
    apart = np.linalg.norm(POINTS @ (found.matrix - MOVED).T, axis=1)
    assert apart.max() < 1.5
    assert found.shift == pytest.approx(np.linalg.norm((MOVED @ [0, 0, 0, 1])[:3]), abs=1.5)
    turned = np.degrees(np.arccos((np.trace(MOVED[:3, :3]) - 1) / 2))
    assert found.rotation == pytest.approx(turned, abs=1.5)
    assert found.warnings == ()


def test_the_transform_for_other_programs_says_the_same() -> None:
    found = matched()
    for point in POINTS:
        lps = found.transform.TransformPoint((-point[0], -point[1], point[2]))
        np.testing.assert_allclose([-lps[0], -lps[1], lps[2]], (found.matrix @ point)[:3], atol=1e-6)


def test_the_figures_move_with_what_they_measure() -> None:
    """Noise makes a match less sharp and less informative; information grows with the search; slabs cover less."""
    good, noisy = matched(), matched(noise=40.0)
    assert good.information > 1.2 * good.information_before
    assert noisy.information < 0.8 * good.information
    assert noisy.sharpness < good.sharpness - 0.02
    assert good.overlap > 0.9
    thick = scan(T2, MOVED)
    slab = Volume(thick.data[:, :, 4:18], thick.affine @ rigid((0, 0, 0), (0, 0, 4)))
    partial = register_rigid(scan(T1, STILL), slab)
    assert partial.overlap < 0.9 < good.overlap
    assert any("covers only" in text for text in partial.warnings)


def _noise() -> Volume:
    data = np.random.default_rng(0).uniform(0, 100, SHAPE).astype(np.float32)
    return Volume(data, AFFINE)


def _organ() -> Volume:
    """Two smooth lobes of another shape and with other borders than a head's."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    lobes = np.exp(-((((x - 0.3) / 0.3) ** 2 + (y / 0.7) ** 2 + (z / 0.8) ** 2) ** 2))
    lobes += 0.6 * np.exp(-((((x + 0.45) / 0.2) ** 2 + ((y - 0.3) / 0.3) ** 2 + (z / 0.5) ** 2) ** 2))
    return Volume((100 * lobes).astype(np.float32), AFFINE)


@pytest.mark.parametrize("make", [_noise, _organ], ids=["noise", "another organ"])
def test_what_does_not_match_is_refused(make: Callable[[], Volume]) -> None:
    with pytest.raises(RegistrationError, match="too little in common with the reference"):
        register_rigid(scan(T1, STILL), make())


def _other_patient(own: Volume) -> Volume:
    return read_nifti(REAL / "TCGA-DU-7294" / "TCGA-DU-7294_t2.nii.gz")


def _a_tenth_too_large(own: Volume) -> Volume:
    return Volume(own.data, np.diag([1.1, 1.1, 1.1, 1.0]) @ own.affine)


@pytest.mark.parametrize("change", [_other_patient, _a_tenth_too_large])
def test_a_head_that_is_not_this_one_is_refused(change: Callable[[Volume], Volume]) -> None:
    """Real heads are much alike: what is refused here would look like a match at first sight."""
    files = native_files()
    with pytest.raises(RegistrationError, match="too little in common with the reference"):
        register_rigid(read_nifti(files["t1ce"]), change(read_nifti(files["t2"])))


def test_a_header_that_swaps_left_and_right_is_refused() -> None:
    """And one of a head that is as it should be is not: what its mirror image matches stands in its figures."""
    seen = scan(T2, MOVED)
    mirrored = Volume(np.ascontiguousarray(seen.data[::-1]), seen.affine)
    with pytest.raises(RegistrationError, match=r"its mirror image matches better .* disagree on left and right"):
        register_rigid(scan(T1, STILL), mirrored)
    good = matched()
    assert good.information_mirrored < 0.9 * good.information
    assert good.figures()["mutual_information_mirrored"] == pytest.approx(good.information_mirrored, abs=1e-4)


def test_a_head_that_is_its_own_mirror_image_is_doubted() -> None:
    """Nothing in it tells left from right: the header is believed, and the doubt is told."""
    same = replace(matched(), information_mirrored=0.99 * matched().information)
    (doubt,) = doubts(same)
    assert "make sure that left and right are right" in doubt
    assert doubts(matched()) == []


@pytest.mark.parametrize("scale", [0.001, 0.1, 10.0, 1000.0])
def test_a_header_in_other_units_is_refused_before_anything_is_searched(scale: float) -> None:
    with pytest.raises(RegistrationError, match=r"the image: .* is the voxel size right"):
        register_rigid(scan(T1, STILL), scan(T2, STILL, scale=scale))
    assert "mm large by its header" in field_problem(scan(T2, STILL, scale=scale))


def test_thresholds_are_in_order() -> None:
    assert 0 < REFUSED_BELOW < POOR_BELOW < matched().sharpness
