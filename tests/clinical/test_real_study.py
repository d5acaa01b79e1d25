"""The real study from its scanner, against what another preprocessing made of it.

Every subset of its sequences: ``tests/clinical/campaign.py``, whose table is in docs/reference/prepare.md.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from medmap_monai.clinical.choose import choose_images
from medmap_monai.clinical.find_studies import nifti_image
from medmap_monai.clinical.prepare_folder import prepare_folder
from medmap_monai.clinical.source import SourceStudy
from medmap_monai.data.studies import scan_studies
from tests.clinical.campaign import prepare_subset
from tests.clinical.conftest import RealRun
from tests.clinical.real_study import MODALITIES, REAL, OtherPreprocessing, native_files


def test_every_subset_is_recognised_by_its_names() -> None:
    files = native_files()
    for size in range(1, len(MODALITIES) + 1):
        for subset in combinations(MODALITIES, size):
            images = tuple(nifti_image(files[name]) for name in subset)
            choice = choose_images(SourceStudy("real", images))
            assert {name: image.files[0] for name, image in choice.images.items()} == {n: files[n] for n in subset}
            assert not choice.unclear


def test_sequences_and_brain_lie_where_the_other_preprocessing_has_them(
    prepared_real: RealRun, other_preprocessing: OtherPreprocessing
) -> None:
    prepared = prepared_real.prepared
    assert set(prepared.volumes) == set(MODALITIES)
    assert not prepared.warnings
    shifts = other_preprocessing.shifts(prepared)
    assert set(shifts) == set(MODALITIES)
    assert max(shifts.values()) <= 2, shifts
    assert other_preprocessing.dice(prepared) >= 0.93
    assert prepared.reference == "t1ce"
    for name, found in prepared.registrations.items():  # the headers are wrong by 3 to 18 mm and up to 14 degrees
        assert found.shift > 2, name
        assert found.sharpness > 0.15, name
        assert found.information_mirrored < 0.92 * found.information, name


@pytest.mark.parametrize("subset", [("t1ce", "t2"), ("flair", "t2"), ("flair",), ("t2",)], ids="+".join)
def test_some_of_its_sequences_are_prepared_as_well(
    subset: tuple[str, ...], prepared_real: RealRun, other_preprocessing: OtherPreprocessing
) -> None:
    """One with the reference of all and another brain, one with another reference, two alone."""
    prepared = prepare_subset(prepared_real.choice.images, subset)
    assert set(prepared.volumes) == set(subset)
    assert not prepared.warnings
    assert prepared.reference == min(subset, key=("t1ce", "t1", "flair", "t2").index)
    assert all(shift <= 2 for shift in other_preprocessing.shifts(prepared).values())
    assert other_preprocessing.dice(prepared) >= 0.93


def test_a_wrong_registration_would_be_seen(prepared_real: RealRun, other_preprocessing: OtherPreprocessing) -> None:
    """The measure itself: with one sequence where its header has it, it tells that sequence from the others."""
    prepared = prepared_real.prepared
    wrong = {name: found for name, found in prepared.registrations.items() if name != "flair"}
    shifts = other_preprocessing.shifts(prepared._replace(registrations=wrong))
    assert shifts["flair"] > 10
    assert max(shift for name, shift in shifts.items() if name != "flair") <= 2


@pytest.mark.parametrize("study", ["TCGA-FG-6692/brats_space", "TCGA-DU-7294"])
def test_a_study_in_brats_space_passes_through_bit_by_bit(study: str, tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"the real studies are not there ({REAL})")
    case = tmp_path / "in" / study.split("/")[0]
    case.mkdir(parents=True)
    for name in MODALITIES:
        (case / f"{case.name}_{name}.nii.gz").symlink_to(REAL / study / f"{case.name}_{name}.nii.gz")
    (prepared,) = prepare_folder(case.parent, tmp_path / "out")
    assert not prepared.error, prepared.error
    assert prepared.record["passed_through"]
    assert not prepared.record["warnings"]
    for given in case.iterdir():
        assert (prepared.folder / given.name).read_bytes() == given.read_bytes()
    assert set(scan_studies(prepared.folder).studies[0].images) == set(MODALITIES)


def test_progress_names_every_step_and_time_is_bounded(prepared_real: RealRun) -> None:
    assert [step.split()[0] for step in prepared_real.steps] == [
        *["read"] * 4, *["register"] * 3, "resample", "find", "crop",
    ]  # fmt: skip
    for what in ("read flair", "register t2 to t1ce", "find the brain on t1 (deepbet)"):
        assert what in prepared_real.steps
    assert set(prepared_real.steps) == set(prepared_real.prepared.seconds)
    assert prepared_real.seconds < 300
