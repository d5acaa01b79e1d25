"""The synthetic heart: anatomy in bSSFP, scar in LGE, oedema in T2."""

from __future__ import annotations

import numpy as np
import pytest

from medmap_monai.data.phantom_brain import PhantomCase
from medmap_monai.data.phantom_heart import heart_phantom

SHAPE = (40, 44, 8)


@pytest.fixture(scope="module")
def cohort() -> list[PhantomCase]:
    return [heart_phantom(SHAPE, (5, number)) for number in range(10)]


def _contrast(cohort: list[PhantomCase], sequence: str, first: int, second: int) -> float:
    differences = []
    for case in cohort:
        image = case.images[sequence] / case.images[sequence].std()
        differences.append(image[case.label == first].mean() - image[case.label == second].mean())
    return float(np.mean(differences))


def test_same_seed_same_bits(cohort: list[PhantomCase]) -> None:
    again = heart_phantom(SHAPE, (5, 0))
    for name, image in cohort[0].images.items():
        np.testing.assert_array_equal(again.images[name], image)
    assert (cohort[1].label != cohort[0].label).any()


def test_every_class_exists(cohort: list[PhantomCase]) -> None:
    for case in cohort:
        assert set(case.images) == {"bssfp", "lge", "t2"}
        assert set(np.unique(case.label)) == {0, 1, 2, 3, 4, 5}
        assert all(image.min() >= 0 and np.isfinite(image).all() for image in case.images.values())


def test_myocardium_encloses_the_left_ventricle(cohort: list[PhantomCase]) -> None:
    """In the middle slice no blood voxel of the left ventricle touches anything but blood and muscle."""
    for case in cohort:
        label = case.label[..., SHAPE[2] // 2]
        blood = label == 2
        for axis in (0, 1):
            for step in (-1, 1):
                beside = np.roll(label, step, axis)[blood]
                assert set(np.unique(beside)) <= {1, 2, 4, 5}


def test_heart_narrows_towards_the_apex(cohort: list[PhantomCase]) -> None:
    sizes = np.mean([(case.label > 0).sum((0, 1)) for case in cohort], axis=0)
    assert sizes[0] < 0.7 * sizes[-1]


@pytest.mark.parametrize(
    ("sequence", "first", "second", "least"),
    [
        ("bssfp", 2, 1, 1.0),  # bright blood beside muscle
        ("bssfp", 3, 1, 1.0),
        ("lge", 5, 1, 1.5),  # scar beside nulled muscle
        ("lge", 5, 4, 1.0),
        ("t2", 4, 1, 0.8),  # oedema beside muscle
        ("t2", 1, 2, 0.3),  # dark blood
    ],
)
def test_contrasts(cohort: list[PhantomCase], sequence: str, first: int, second: int, least: float) -> None:
    assert _contrast(cohort, sequence, first, second) > least


@pytest.mark.parametrize(
    ("sequence", "lesion", "shown"),
    [("bssfp", 5, 2), ("bssfp", 4, 2), ("lge", 4, 5)],
)
def test_infarct_hides_in_the_other_sequences(
    cohort: list[PhantomCase], sequence: str, lesion: int, shown: int
) -> None:
    """Beside what the sequence is made for, the lesion hardly differs from healthy muscle."""
    assert abs(_contrast(cohort, sequence, lesion, 1)) < 0.25 * _contrast(cohort, sequence, shown, 1)


def test_without_scar() -> None:
    assert set(np.unique(heart_phantom(SHAPE, (5, 0), p_no_scar=1.0).label)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("kwargs", [{"shape": (20, 40, 8)}, {"shape": (40, 40, 2)}, {"p_no_scar": -0.1}])
def test_bad_arguments(kwargs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"3 slices|from 0 to 1"):
        heart_phantom(**{"shape": SHAPE, "seed": 0, **kwargs})  # type: ignore[arg-type]
