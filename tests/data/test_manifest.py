"""Manifests: CSV and JSON in, CSV and JSON out, and the errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmap_monai.data.manifest import read_manifest, scan_manifest, write_manifest
from medmap_monai.data.studies import find_studies
from medmap_monai.data.study import StudyError


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    for name in ("a/f.nii.gz", "a/t1.nii.gz", "b/f.nii.gz", "b/lab.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_csv(cohort: Path) -> None:
    path = cohort / "m.csv"
    path.write_text("case_id,flair,t1,label,age\nA,a/f.nii.gz,a/t1.nii.gz,,61\nB,b/f.nii.gz,,b/lab.nii.gz,\n")
    first, second = read_manifest(path)
    assert (first.case_id, list(first.images), first.label) == ("A", ["flair", "t1"], None)
    assert first.images["flair"].path == cohort / "a" / "f.nii.gz"
    assert first.extra == {"age": "61"}
    assert (list(second.images), second.label) == (["flair"], cohort / "b" / "lab.nii.gz")
    assert first.edition == "generic"
    assert read_manifest(path, "brats2020")[0].edition == "brats2020"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_byte_order_mark(cohort: Path, delimiter: str) -> None:
    path = cohort / "m.csv"
    path.write_text("\ufeff" + delimiter.join(["case_id", "flair"]) + "\n" + delimiter.join(["A", "a/f.nii.gz"]) + "\n")
    assert list(read_manifest(path)[0].images) == ["flair"]


def test_json_list_and_object(cohort: Path) -> None:
    rows = [{"case_id": "A", "flair": "a/f.nii.gz", "t1": None}]
    (cohort / "list.json").write_text(json.dumps(rows))
    (cohort / "object.json").write_text(json.dumps({"edition": "brats2023", "cases": rows}))
    assert read_manifest(cohort / "list.json")[0].edition == "generic"
    (study,) = read_manifest(cohort / "object.json")
    assert (study.edition, list(study.images)) == ("brats2023", ["flair"])


def test_heart_columns_are_recognised(cohort: Path) -> None:
    (cohort / "m.csv").write_text("case_id,bssfp,lge\nA,a/f.nii.gz,a/t1.nii.gz\n")
    assert read_manifest(cohort / "m.csv")[0].edition == "myops2020"
    (cohort / "m.csv").write_text("case_id,t2\nA,a/f.nii.gz\n")
    with pytest.raises(ValueError, match="name the edition"):
        read_manifest(cohort / "m.csv")


def test_channel_of_a_4d_file(cohort: Path) -> None:
    (cohort / "m.csv").write_text("case_id,flair,t1\nA,a/f.nii.gz#0,a/f.nii.gz#1\n")
    (study,) = read_manifest(cohort / "m.csv")
    assert [study.images[name].channel for name in ("flair", "t1")] == [0, 1]
    assert study.images["flair"].path.name == "f.nii.gz"


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_round_trip(tmp_path: Path, ending: str) -> None:
    for name in ("BRATS_001", "BRATS_002"):
        path = tmp_path / "imagesTr" / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    studies = find_studies(tmp_path)
    path = tmp_path / f"m.{ending}"
    write_manifest(path, studies)
    assert str(tmp_path) not in path.read_text()  # relative, so that the folder can move
    assert read_manifest(path) == studies


def test_files_outside_the_folder_are_absolute(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (cohort / "m.csv").write_text("case_id,flair\nA,a/f.nii.gz\n")
    studies = read_manifest(cohort / "m.csv")
    other = tmp_path_factory.mktemp("other") / "m.csv"
    write_manifest(other, studies)
    assert read_manifest(other) == studies


@pytest.mark.parametrize(
    ("text", "case_id", "message"),
    [
        (
            "case_id,flair\nA,a/gone.nii.gz\nB,b/f.nii.gz\n",
            "A",
            r"gone\.nii\.gz.*of column flair does not exist; .*m\.csv, line 2",
        ),
        ("case_id,flair,label\nA,a/f.nii.gz,x.nii\nB,b/f.nii.gz,\n", "A", r"file of column label does not exist"),
        ("case_id,flair\nA,\nB,b/f.nii.gz\n", "A", r"m\.csv: line 2: no modality.*flair"),
        ("case_id,flair\nB,b/f.nii.gz\nB,b/f.nii.gz\n", "B", "line 3: listed twice; keep one"),
        ("case_id,flair\n,a/f.nii.gz\nB,b/f.nii.gz\n", "(line 2)", r"m\.csv: column case_id is empty; every row"),
        ("case_id,flair\n../x,a/f.nii.gz\nB,b/f.nii.gz\n", "../x", "may not be a path"),
    ],
)
def test_bad_row_is_named_and_the_others_kept(cohort: Path, text: str, case_id: str, message: str) -> None:
    (cohort / "m.csv").write_text(text)
    scan = scan_manifest(cohort / "m.csv")
    assert [study.case_id for study in scan.studies] == ["B"]
    assert [error.case_id for error in scan.errors] == [case_id]
    with pytest.raises(StudyError, match=message):
        read_manifest(cohort / "m.csv")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "case_id,flair\n", "lists no case"),
        ("m.csv", "id,flair\nA,a/f.nii.gz\n", "no column case_id"),
        ("m.csv", "case_id,flair,t1gd\nA,a/f.nii.gz,a/t1.nii.gz\n", "column t1gd lists images.*t1ce"),
        ("m.csv", "case_id,flair\nA\n", r"m\.csv, line 2: 2 cells expected.*case_id, flair.*absent value"),
        ("m.csv", "case_id,flair\nA,a/f.nii.gz,x\n", r"line 2: 2 cells expected.*got 3"),
        ("m.csv", 'case_id,flair\nA,"' + "x" * 200_000 + "\n", r"m\.csv, line 2: field larger.*quotation mark"),
        ("m.csv", "case_id,flair,flair\nA,,\n", "'flair' twice"),
        ("m.csv", "", "is empty; its first line must name the columns"),
        ("m.csv", b"case_id;flair\nM\xfcller;a/f.nii.gz\n", r"m\.csv is no UTF-8 text \(byte 15\); save it"),
        ("m.json", "[" * 100_000, "not valid JSON"),
        ("m.csv", "case_id,flair,edition\nA,a/f.nii.gz,brats2020\nB,b/f.nii.gz,brats2021\n", "mixes the editions"),
        ("m.json", "{", "not valid JSON"),
        ("m.json", "{}", "must hold a list"),
        ("m.txt", "x", "must end in"),
    ],
)
def test_unusable_manifest(cohort: Path, name: str, text: str | bytes, message: str) -> None:
    (cohort / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_manifest(cohort / name)


def test_one_image_is_not_two_modalities(cohort: Path) -> None:
    (cohort / "m.csv").write_text("case_id,t1,t1ce\nA,a/t1.nii.gz,a/t1.nii.gz\nB,b/f.nii.gz,\n")
    scan = scan_manifest(cohort / "m.csv")
    assert [study.case_id for study in scan.studies] == ["B"]
    assert "listed for more than one modality: t1ce and t1" in str(scan.errors[0])


def test_absent_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_manifest(tmp_path / "none.csv")


def test_writing_refuses_other_endings_and_nothing(cohort: Path) -> None:
    (cohort / "m.csv").write_text("case_id,flair\nA,a/f.nii.gz\n")
    with pytest.raises(ValueError, match=r"\.csv or \.json"):
        write_manifest(cohort / "m.xlsx", read_manifest(cohort / "m.csv"))
    with pytest.raises(ValueError, match="no study"):
        write_manifest(cohort / "x.csv", [])
