from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.data.cohort import cohort_records
from medmap_monai.data.evaluation_records import EvaluationRecords
from medmap_monai.data.manifest import read_manifest
from medmap_monai.data.patients import patient_of, patient_of_study, straddling_message
from medmap_monai.data.splits import SplitRow, read_split, write_split
from medmap_monai.data.training_cases import TrainingCases


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00005-000", "BraTS-GLI-00005"),
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005"),  # the same patient after treatment: another edition
        ("BraTS-MET-00110-000", "BraTS-MET-00110"),
        ("sub-01_ses-02", "sub-01"),
        ("sub-01", "sub-01"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("Brats18_CBICA_AAB_1", "Brats18_CBICA_AAB_1"),
        ("myops_training_101", "myops_training_101"),
        ("anything-1", "anything-1"),
    ],
)
def test_patients_of_case_ids(case: str, patient: str) -> None:
    assert patient_of(case) == patient
    assert patient_of(case, "generic") == patient


@pytest.fixture(scope="module")
def time_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with two time points each."""
    folder = tmp_path_factory.mktemp("time_points")
    volume = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    for patient in range(6):
        for visit in range(2):
            case = f"BraTS-GLI-{patient:05d}-{visit:03d}"
            (folder / case).mkdir()
            for name in ("t2f", "t1c"):
                nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / case / f"{case}-{name}.nii.gz")
            nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), folder / case / f"{case}-seg.nii.gz")
    return folder


def test_folds_of_a_cohort_keep_time_points_together(time_points: Path) -> None:
    folds = {
        fold: {
            patient_of(r["case_id"])
            for r in cohort_records(time_points, fold=fold, val_fraction=0.2, test_fraction=0.2)
        }
        for fold in ("train", "val", "test")
    }
    assert sum(len(patients) for patients in folds.values()) == 6
    assert folds["test"] == {
        patient_of(r["case_id"]) for r in EvaluationRecords(time_points, fold="test", test_fraction=0.2)()
    }


def test_the_command_writes_the_group_and_keeps_it(time_points: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    result = CliRunner().invoke(app, ["split", "--cases", str(time_points), "--test", "0.3", "--output", str(split)])
    assert result.exit_code == 0, result.output
    assert "12 cases of 6 patients" in result.output
    rows = read_split(split)
    assert {row.group for row in rows} == {f"BraTS-GLI-{patient:05d}" for patient in range(6)}
    assert len({(row.group, row.fold) for row in rows}) == 6
    write_split(tmp_path / "split.json", rows)
    assert read_split(tmp_path / "split.json") == rows


def test_a_split_without_groups_has_no_column(tmp_path: Path) -> None:
    write_split(tmp_path / "split.csv", [SplitRow("a", group="a"), SplitRow("b", "test")])
    assert (tmp_path / "split.csv").read_text().splitlines()[0] == "case_id,fold,available,seed,rates"


def test_case_ids_of_any_kind_survive_the_file(tmp_path: Path) -> None:
    rows = [SplitRow(name, group="g") for name in ("=1+1", "+a", "-b", "@c", "'=d")]
    write_split(tmp_path / "split.csv", rows)
    assert not any(line.startswith(tuple("=+-@")) for line in (tmp_path / "split.csv").read_text().splitlines())
    assert [row.case_id for row in read_split(tmp_path / "split.csv")] == [row.case_id for row in rows]


def test_a_manifest_names_its_patients(time_points: Path, tmp_path: Path) -> None:
    images = sorted(time_points.glob("*/*-t2f.nii.gz"))
    lines = [f"scan{number},{path},person{number % 3}" for number, path in enumerate(images)]
    manifest = tmp_path / "list.csv"
    manifest.write_text("case_id,flair,group\n" + "\n".join(lines) + "\n")
    assert {patient_of_study(study) for study in read_manifest(manifest)} == {"person0", "person1", "person2"}
    test = cohort_records(manifest, fold="test", test_fraction=0.3, val_fraction=0)
    assert len(test) == 4
    assert len({patient_of_study(record["study"]) for record in test}) == 1


def test_a_split_that_divides_a_patient_is_warned_of(time_points: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    write_split(split, [SplitRow("BraTS-GLI-00001-000", "train"), SplitRow("BraTS-GLI-00001-001", "test")])
    with pytest.warns(UserWarning, match=r"1 patient has cases in several folds, such as BraTS-GLI-00001"):
        cohort_records(time_points, split_file=split, fold="train")
    with pytest.warns(UserWarning, match="several folds"):
        EvaluationRecords(time_points, split_file=split, fold="test")()
    assert straddling_message("x", {"a": "train", "b": "test"}, {}) is None


def test_an_evaluation_takes_the_cases_that_the_weights_have_not_seen(time_points: Path) -> None:
    train = {f"BraTS-GLI-{patient:05d}-000": f"BraTS-GLI-{patient:05d}" for patient in (0, 1, 2)}
    seen = TrainingCases(train, {"BraTS-GLI-00003-001": "BraTS-GLI-00003"})
    records = EvaluationRecords(time_points)(seen)
    assert {patient_of(record["case_id"]) for record in records} == {"BraTS-GLI-00004", "BraTS-GLI-00005"}
    assert {record["fold"] for record in records} == {"unseen"}
    everything = EvaluationRecords(time_points, fold="all")(seen)
    assert [record["fold"] for record in everything] == ["train"] * 6 + ["val"] * 2 + ["unseen"] * 4
    assert {record["fold"] for record in EvaluationRecords(time_points)()} == {"unknown"}
    with pytest.raises(ValueError, match=r"have seen all 12 cases.*--fold all"):
        EvaluationRecords(time_points)(TrainingCases({p: p for p in map("BraTS-GLI-{:05d}".format, range(6))}, {}))
