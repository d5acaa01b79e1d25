"""One image -> the study that it belongs to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medmap_monai.data.study import StudyError
from medmap_monai.data.study_of_file import study_of_file
from medmap_monai.transforms.load_study import LoadStudyd
from medmap_monai.transforms.restore import SaveLabelMapd

CASE = "BraTS20_Training_001"


def test_any_file_or_the_folder_finds_the_study(phantom_cohort: Path, tmp_path: Path) -> None:
    for name in ("flair", "t2"):  # two of four files exist
        shutil.copy(phantom_cohort / CASE / f"{CASE}_{name}.nii.gz", tmp_path)
    for given in (tmp_path, tmp_path / f"{CASE}_flair.nii.gz", tmp_path / f"{CASE}_t2.nii.gz"):
        assert set(study_of_file(given).images) == {"flair", "t2"}
    loaded = LoadStudyd(("flair", "t1ce", "t1", "t2"))({"image": str(tmp_path / f"{CASE}_t2.nii.gz"), "other": 1})
    assert loaded["present_mask"].tolist() == [True, False, False, True]
    assert loaded["case_id"] == CASE
    assert loaded["other"] == 1


def test_a_label_that_is_handed_over_is_the_studys(phantom_cohort: Path) -> None:
    folder = phantom_cohort / CASE
    item = {"image": str(folder / f"{CASE}_t1.nii.gz"), "label": str(folder / f"{CASE}_seg.nii.gz")}
    loaded = LoadStudyd(("flair", "t1"), label="required")(item)
    assert loaded["label"].max() > 0


def test_what_names_no_study_is_an_error(phantom_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds 8 studies"):
        study_of_file(phantom_cohort)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        study_of_file(tmp_path / "none.nii.gz")
    with pytest.raises(KeyError, match="'image' with the path of a file"):
        LoadStudyd(("flair",))({"image": 3})


def test_the_saver_counts_as_monais(tmp_path: Path) -> None:
    """MONAI Label takes ``SaveImaged`` out of a bundle's transforms, as it writes results itself."""
    from monai.transforms import SaveImaged

    assert isinstance(SaveLabelMapd("pred", tmp_path), SaveImaged)
