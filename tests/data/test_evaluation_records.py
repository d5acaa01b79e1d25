from __future__ import annotations

import pytest

from medmap_monai.data.evaluation_records import EvaluationRecords
from medmap_monai.data.splits import SplitRow, write_split
from tests.engines.test_subset_evaluator import write_study


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    for number in range(1, 6):
        write_study(folder, number, modalities=("flair", "t2"))
    (folder / "BraTS20_Training_006").mkdir()  # a case folder without a single modality
    return folder


def _ids(records):
    return [record["case_id"][-3:] for record in records]


def test_a_faulty_case_is_a_record_with_its_error(cohort):
    records = EvaluationRecords(cohort, "brats2020")()
    assert _ids(records) == ["001", "002", "003", "004", "005", "006"]
    assert "no modality" in records[-1]["error"]
    assert "study" not in records[-1]
    assert records[0]["available"] is None


def test_folds_are_a_partition(cohort):
    parts = [
        EvaluationRecords(cohort, fold=f, val_fraction=0.34, test_fraction=0.34)() for f in ("train", "val", "test")
    ]
    assert sorted(_ids([record for part in parts for record in part])) == ["001", "002", "003", "004", "005", "006"]
    assert all(parts)


def test_a_split_file_chooses_the_cases_and_what_they_may_use(cohort, tmp_path):
    rows = [
        SplitRow("BraTS20_Training_002", "test", ("flair",)),
        SplitRow("BraTS20_Training_003", "train", ("flair", "t2")),
        SplitRow("BraTS20_Training_099", "test", ("t2",)),
    ]
    split = tmp_path / "split.csv"
    write_split(split, rows)
    records = EvaluationRecords(cohort, "brats2020", split_file=split, fold="test")()
    assert _ids(records) == ["002", "099"]
    assert records[0]["available"] == ("flair",)
    assert "does not hold it" in records[1]["error"]


def test_nothing_is_read_before_the_call(tmp_path):
    records = EvaluationRecords(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="absent"):
        records()
    with pytest.raises(ValueError, match="train, val, test"):
        EvaluationRecords(tmp_path, fold="testing")
