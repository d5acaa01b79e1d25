from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from medmap_monai.data.cohort import scan_cohort
from medmap_monai.data.evaluation_records import EvaluationRecords
from medmap_monai.data.training_cases import read_training_cases, training_cases_of, write_training_cases

CASES = [f"BraTS20_Training_{number:03d}" for number in (1, 2, 3)]


def _copied(source: Path, target: Path, case: str, name: str, modalities: tuple[str, ...]) -> None:
    (target / name).mkdir(parents=True)
    for part in modalities:
        shutil.copy(source / case / f"{case}_{part}.nii.gz", target / name / f"{name}_{part}.nii.gz")


def test_a_copy_under_another_name_is_a_training_case(phantom_cohort: Path, tmp_path: Path) -> None:
    studies = {study.case_id: study for study in scan_cohort(phantom_cohort, None).studies}
    records = [{"case_id": case, "study": studies[case]} for case in CASES]
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    write_training_cases(weights, training_cases_of(records[:2], records[2:]))
    seen = read_training_cases(weights)
    assert seen is not None
    cohort = tmp_path / "cohort"
    _copied(phantom_cohort, cohort, CASES[0], "BraTS20_Training_101", ("flair", "t1", "t2", "seg"))
    _copied(phantom_cohort, cohort, CASES[2], "BraTS20_Training_103", ("t1ce", "seg"))
    with pytest.raises(ValueError, match=r"have seen all 2 cases.*--fold all"):
        EvaluationRecords(cohort)(seen)
    _copied(phantom_cohort, cohort, "BraTS20_Training_004", "BraTS20_Training_104", ("flair", "t2", "seg"))
    # one image that it shares with a training case makes it none: constant images are alike in many
    shutil.copy(
        phantom_cohort / CASES[1] / f"{CASES[1]}_t1.nii.gz",
        cohort / "BraTS20_Training_104" / "BraTS20_Training_104_t1.nii.gz",
    )
    records = EvaluationRecords(cohort, fold="all")(seen)
    assert [record["fold"] for record in records] == ["train", "val", "unseen"]
    assert [record["case_id"] for record in EvaluationRecords(cohort)(seen)] == ["BraTS20_Training_104"]


def test_a_record_comes_back_and_one_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    cases = training_cases_of([{"case_id": "a"}], [{"case_id": "b"}])
    assert cases is not None
    cases = replace(cases, images={"a": ["0f", "1e"]}, window=(80, 80, 64), orientation="LPS")
    write_training_cases(weights, cases)
    assert read_training_cases(weights) == cases
    path = tmp_path / "model_cases.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in ("format", "sha256", "train", "val")}))
    assert read_training_cases(weights) == replace(cases, images={}, window=(), orientation="")
    path.write_text(json.dumps({**content, "images": ["a"]}))
    assert read_training_cases(weights) is None
