"""The synthetic brain: what it must look like for missing-modality effects to be real."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medmap_monai.data.phantom_brain import PhantomCase, brain_phantom
from medmap_monai.data.random_fields import random_field, smooth

SHAPE = (28, 26, 24)
CASES = 12


@pytest.fixture(scope="module")
def cohort() -> list[PhantomCase]:
    return [brain_phantom(SHAPE, (3, number)) for number in range(CASES)]


def _z(image: NDArray[np.float32]) -> NDArray[np.float64]:
    brain = image > 0
    return (image - image[brain].mean(dtype=float)) / image[brain].std(dtype=float)


def _contrast(cohort: list[PhantomCase], modality: str, first: int, second: int) -> float:
    """Mean z-score of class ``first`` minus that of class ``second`` (0: healthy brain)."""
    differences = []
    for case in cohort:
        image, brain = _z(case.images[modality]), case.images[modality] > 0
        differences.append(image[brain & (case.label == first)].mean() - image[brain & (case.label == second)].mean())
    return float(np.mean(differences))


def test_same_seed_same_bits(cohort: list[PhantomCase]) -> None:
    again = brain_phantom(SHAPE, (3, 0))
    for name, image in cohort[0].images.items():
        assert image.dtype == np.float32
        np.testing.assert_array_equal(again.images[name], image)
    np.testing.assert_array_equal(again.label, cohort[0].label)


def test_other_cases_and_seeds_are_other_patients(cohort: list[PhantomCase]) -> None:
    for other in (cohort[1], brain_phantom(SHAPE, (4, 0))):
        assert (other.label != cohort[0].label).any()
        assert (other.images["t1"] != cohort[0].images["t1"]).mean() > 0.2


def test_zero_outside_the_brain_in_every_modality(cohort: list[PhantomCase]) -> None:
    for case in cohort:
        brain = case.images["flair"] > 0
        assert 0.25 < brain.mean() < 0.5
        assert not any(brain[x, y, z] for x in (0, -1) for y in (0, -1) for z in (0, -1))
        for image in case.images.values():
            np.testing.assert_array_equal(image > 0, brain)
            assert np.isfinite(image).all()
        assert not (case.label[~brain]).any()


def test_every_region_exists_and_is_large_enough(cohort: list[PhantomCase]) -> None:
    scale = (min(SHAPE) / 48) ** 3
    for case in cohort:
        assert case.label.dtype == np.uint8
        ncr, ed, et = np.bincount(case.label.ravel(), minlength=4)[1:]
        assert ncr >= 70 * scale
        assert ed >= 400 * scale
        assert et >= 200 * scale
        assert ncr + et >= 300 * scale


@pytest.mark.parametrize(
    ("modality", "first", "second", "least"),
    [
        ("flair", 2, 0, 1.5),  # FLAIR shows the oedema
        ("t1ce", 3, 0, 0.8),  # T1ce shows the enhancing rim ...
        ("t1ce", 3, 1, 1.2),  # ... around the dark necrosis
        ("t1", 0, 1, 0.5),  # T1 shows the necrosis faintly
        ("t2", 1, 0, 0.5),  # T2 shows necrosis like fluid
        ("t2", 2, 0, 0.2),
    ],
)
def test_contrasts(cohort: list[PhantomCase], modality: str, first: int, second: int, least: float) -> None:
    assert _contrast(cohort, modality, first, second) > least


def test_enhancement_shows_in_t1ce_and_not_in_t1(cohort: list[PhantomCase]) -> None:
    assert _contrast(cohort, "t1ce", 3, 0) > _contrast(cohort, "t1", 3, 0) + 1


def test_scanner_scale_differs_so_that_normalisation_is_needed(cohort: list[PhantomCase]) -> None:
    means = [case.images["t1"][case.images["t1"] > 0].mean() for case in cohort]
    assert max(means) > 1.5 * min(means)


def test_no_enhancement() -> None:
    case = brain_phantom(SHAPE, (3, 0), p_no_et=1.0)
    assert set(np.unique(case.label)) == {0, 1, 2}
    plain = brain_phantom(SHAPE, (3, 0))
    np.testing.assert_array_equal(case.label > 0, plain.label > 0)


@pytest.mark.parametrize("kwargs", [{"shape": (12, 24, 24)}, {"shape": (24, 24)}, {"p_no_et": 1.5}])
def test_bad_arguments(kwargs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"16 voxels|from 0 to 1"):
        brain_phantom(**{"shape": SHAPE, "seed": 0, **kwargs})  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", [2.0, 50.0, (3.0, 3.0, 2.0)])
def test_random_field(cell: float | tuple[float, ...]) -> None:
    field = random_field((20, 18, 16), cell, np.random.default_rng(0))
    assert field.shape == (20, 18, 16)
    assert field.dtype == np.float32
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.std() == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(field, random_field((20, 18, 16), cell, np.random.default_rng(0)))


def test_larger_cells_are_smoother() -> None:
    roughness = [
        float(np.abs(np.diff(random_field((24, 24, 24), cell, np.random.default_rng(1)), axis=0)).mean())
        for cell in (2, 6, 12)
    ]
    assert roughness[0] > roughness[1] > roughness[2]


def test_smooth_keeps_constants_and_spreads_a_spike() -> None:
    np.testing.assert_allclose(smooth(np.ones((3, 4), np.float32), 0, 0.25), 1)
    spike = np.zeros(5, np.float32)
    spike[2] = 1
    np.testing.assert_allclose(smooth(spike, 0, 0.25), [0, 0.25, 0.5, 0.25, 0])
