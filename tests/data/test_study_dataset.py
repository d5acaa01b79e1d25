from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from medmap_monai.data.inference_records import inference_records
from medmap_monai.data.study import StudyError
from medmap_monai.data.study_dataset import StudyDataset, find_study_error
from medmap_monai.modalities import BRATS


def test_whatever_goes_wrong_with_a_study_becomes_its_record() -> None:
    def transform(item: dict[str, object]) -> dict[str, object]:
        if item["case_id"] == "bad":
            try:
                raise StudyError("bad", "is empty", Path("bad.nii.gz"))
            except StudyError as error:
                raise RuntimeError("applying transform") from error
        if item["case_id"] == "bug":
            raise KeyError("image")
        return item

    dataset = StudyDataset([{"case_id": "good"}, {"case_id": "bad"}, {"case_id": "x", "error": "told"}], transform)
    assert dataset[0] == {"case_id": "good"}
    assert dataset[1] == {"case_id": "bad", "error": "case bad: bad.nii.gz: is empty"}
    assert dataset[2] == {"case_id": "x", "error": "told"}
    assert StudyDataset([{"case_id": "bug"}], transform)[0] == {
        "case_id": "bug",
        "error": "case bug: KeyError: 'image'",
    }


def test_running_out_of_memory_says_what_to_do() -> None:
    def transform(item: dict[str, object]) -> dict[str, object]:
        raise MemoryError("Unable to allocate 33.0 GiB")

    found = StudyDataset([{"case_id": "a"}], transform)[0]["error"]
    assert found.startswith("case a: not enough memory")
    assert "33.0 GiB" in found


def test_find_study_error_looks_through_the_chain() -> None:
    assert find_study_error(ValueError("x")) is None
    inner = StudyError("a", "b")
    outer = RuntimeError("c")
    outer.__cause__ = inner
    assert find_study_error(outer) is inner


def test_records_of_a_folder(phantom_cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    for number in (1, 2, 3):
        shutil.copytree(phantom_cohort / f"BraTS20_Training_{number:03d}", folder / f"BraTS20_Training_{number:03d}")
    out = tmp_path / "out"
    records = inference_records(folder, None, tuple(BRATS), out)
    assert [r["case_id"] for r in records] == [f"BraTS20_Training_{number:03d}" for number in (1, 2, 3)]
    assert (records.problem, records.overwrite) == (None, False)
    assert inference_records(folder, None, tuple(BRATS), out, overwrite=True).overwrite
    strangers = inference_records(folder, None, ("lge",), out)
    assert all("none of the network's modalities" in r["error"] for r in strangers)


def test_an_absent_folder_is_a_problem_for_the_run_and_not_for_the_configuration(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the run tells it, once
        records = inference_records(tmp_path / "nowhere", None, tuple(BRATS), tmp_path)
    assert list(records) == []
    assert isinstance(records.problem, FileNotFoundError)
