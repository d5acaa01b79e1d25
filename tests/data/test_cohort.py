"""Cohorts as MONAI items: folds, splits with availability, absent folders."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from monai.data import Dataset

from medmap_monai.data.cohort import cohort_records, scan_cohort
from medmap_monai.data.evaluation_records import EvaluationRecords
from medmap_monai.data.manifest import write_manifest
from medmap_monai.data.published_splits import format_passion
from medmap_monai.data.splits import SplitRow, write_split
from medmap_monai.data.studies import find_studies
from medmap_monai.data.study import Study, StudyError

CASES = [f"BraTS20_Training_{number:03d}" for number in range(1, 11)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "cohort"
    for case in CASES:
        for suffix in ("flair", "t1ce", "t1", "t2", "seg"):
            path = root / case / f"{case}_{suffix}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return root


def _ids(records: list[dict]) -> list[str]:
    return [record["case_id"] for record in records]


def test_items_for_a_data_set(folder: Path) -> None:
    records = cohort_records(folder)
    assert _ids(records) == CASES
    assert set(records[0]) == {"case_id", "study", "available"}
    assert records[0]["available"] is None
    assert isinstance(records[0]["study"], Study)
    assert pickle.loads(pickle.dumps(records)) == records  # data-loader workers and persistent caches need it
    assert Dataset(records)[3]["case_id"] == CASES[3]


def test_folds_without_a_split_are_a_fixed_partition(folder: Path) -> None:
    folds = {
        fold: _ids(cohort_records(folder, fold=fold, val_fraction=0.2, test_fraction=0.3, seed=1))
        for fold in ("train", "val", "test")
    }
    assert [len(cases) for cases in folds.values()] == [5, 2, 3]
    assert sorted(case for cases in folds.values() for case in cases) == CASES
    again = _ids(cohort_records(str(folder), "brats2020", fold="val", val_fraction=0.2, test_fraction=0.3, seed=1))
    assert again == folds["val"]
    other = [_ids(cohort_records(folder, fold="val", seed=seed)) for seed in range(4)]
    assert len({tuple(cases) for cases in other}) > 1


def test_split_file_grants_modalities(folder: Path, tmp_path: Path) -> None:
    rows = [
        SplitRow(CASES[2], "train", ("t1",)),
        SplitRow(f"HG_{CASES[0]}", "train", ("flair", "t2")),
        SplitRow(CASES[5], "val"),
    ]
    write_split(tmp_path / "s.csv", rows)
    records = cohort_records(folder, split_file=tmp_path / "s.csv", fold="train")
    assert [(record["case_id"], record["available"]) for record in records] == [
        (CASES[0], ("flair", "t2")),
        (CASES[2], ("t1",)),
    ]
    assert _ids(cohort_records(folder, split_file=tmp_path / "s.csv")) == [CASES[0], CASES[2], CASES[5]]


def test_published_split_and_numbered_split(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(format_passion([f"LG_{CASES[4]}"], [("t2",)]).encode())
    (record,) = cohort_records(folder, split_file=tmp_path / "p.csv", fold="train")
    assert (record["case_id"], record["available"]) == (CASES[4], ("t2",))
    write_split(tmp_path / "n.json", [SplitRow(f"#{i:03d}", "val" if i == 3 else "train") for i in range(1, 11)])
    assert _ids(cohort_records(folder, split_file=tmp_path / "n.json", fold="val")) == [CASES[2]]


def test_manifest_as_source(folder: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.csv", find_studies(folder)[:2])
    assert _ids(cohort_records(tmp_path / "m.csv")) == CASES[:2]
    assert scan_cohort(tmp_path / "m.csv").edition.name == "brats2020"


def test_absent_source_may_be_allowed(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="gone does not exist"):
        assert cohort_records(tmp_path / "gone", must_exist=False) == []
    with pytest.warns(UserWarning, match=r"none\.csv does not exist"):
        assert cohort_records(folder, split_file=tmp_path / "none.csv", must_exist=False) == []
    with pytest.raises(FileNotFoundError, match="gone"):
        cohort_records(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        cohort_records(folder, split_file=tmp_path / "none.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no study"):
        cohort_records(tmp_path / "empty", must_exist=False)


def test_split_names_cases_that_do_not_exist(folder: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "s.csv", [SplitRow(CASES[0]), *(SplitRow(f"x{i}") for i in range(7))])
    with pytest.raises(ValueError, match=r"s\.csv lists cases.*cohort.*x0, x1, x2, x3, x4 and 2 more"):
        cohort_records(folder, split_file=tmp_path / "s.csv")


def test_split_grants_what_is_not_on_disk(folder: Path, tmp_path: Path) -> None:
    (folder / CASES[0] / f"{CASES[0]}_t1.nii.gz").unlink()
    write_split(tmp_path / "s.csv", [SplitRow(CASES[0], "train", ("t1",))])
    with pytest.raises(StudyError, match=r"Training_001.*grants t1, but only flair\+t1ce\+t2 exists"):
        cohort_records(folder, split_file=tmp_path / "s.csv")
    write_split(tmp_path / "s.csv", [SplitRow(CASES[0], "train", ("t1", "t2"))])
    with pytest.warns(UserWarning, match=r"1 case, first BraTS20_Training_001"):
        (record,) = cohort_records(folder, split_file=tmp_path / "s.csv")
    assert record["available"] == ("t1", "t2")


def test_bad_case_matters_only_where_it_is_used(folder: Path, tmp_path: Path) -> None:
    for path in (folder / CASES[9]).iterdir():
        path.unlink()
    with pytest.raises(StudyError, match=CASES[9]):
        cohort_records(folder)
    write_split(tmp_path / "s.csv", [SplitRow(case) for case in CASES[:9]])
    assert len(cohort_records(folder, split_file=tmp_path / "s.csv")) == 9
    write_split(tmp_path / "s.csv", [SplitRow(case) for case in CASES])
    with pytest.raises(StudyError, match=CASES[9]):
        cohort_records(folder, split_file=tmp_path / "s.csv")


def test_empty_and_unknown_folds(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'valid' is unknown; allowed are train, val, test"):
        cohort_records(folder, fold="valid")
    with pytest.raises(ValueError, match=r"fold test of .* is empty: 10 cases"):
        cohort_records(folder, fold="test", test_fraction=0.0)
    write_split(tmp_path / "s.csv", [SplitRow(CASES[0])])
    with pytest.raises(ValueError, match=r"no case in fold val"):
        cohort_records(folder, split_file=tmp_path / "s.csv", fold="val")


def test_evaluation_takes_numbered_splits_too(folder: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "n.csv", [SplitRow(f"#{i:03d}", "test" if i == 2 else "train") for i in range(1, 11)])
    (record,) = EvaluationRecords(folder, split_file=tmp_path / "n.csv", fold="test")()
    assert record["case_id"] == CASES[1]
    assert "error" not in record
