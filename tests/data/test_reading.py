"""One reading of a folder: every NIfTI file is accounted for, and nothing is silently absent."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmap_monai.data.cohort import scan_cohort
from medmap_monai.data.studies import StudyScan, scan_studies

REAL = Path(__file__).resolve().parents[2] / "../shared/real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real studies of ../shared/real are not here")


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def _held(scan: StudyScan) -> dict[str, list[str]]:
    return {study.case_id: list(study.images) for study in scan.studies}


ALL = ["flair", "t1ce", "t1", "t2"]
READ = {
    "capitals": (["p1/p1_FLAIR.NII.GZ", "p1/p1_T1.nii", "p1/P1_T2.nii.gz"], {"p1": ["flair", "t1", "t2"]}),
    "contrast": (["p1/p1_flair.nii", "p1/p1_post_T1.nii", "p1/p1_T1.nii"], {"p1": ["flair", "t1ce", "t1"]}),
    "t1_ce": (["pat01/pat01_t1_ce.nii.gz", "pat01/pat01_fla.nii.gz"], {"pat01": ["flair", "t1ce"]}),
    "BraTS 2023 with other suffixes": (
        ["BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1ce.nii.gz", "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f.nii.gz"],
        {"BraTS-GLI-00001-000": ["flair", "t1ce"]},
    ),
    "all in one folder with other suffixes": (
        ["BraTS20_Training_001_t1gd.nii.gz", "BraTS20_Training_002_FLAIR.nii.gz", "BraTS20_Training_001_T1.nii"],
        {"BraTS20_Training_001": ["t1ce", "t1"], "BraTS20_Training_002": ["flair"]},
    ),
    "BraTS-MET with bare names": (
        [f"BraTS-MET-00110-000/{name}.nii.gz" for name in ("t1", "t1c", "t2", "flair", "seg")],
        {"BraTS-MET-00110-000": ALL},
    ),
    "a patient's folder with names that disagree": (
        [
            "MRHR_FLAIR_AX_Si_X_SE_IR_5_fla.nii.gz",
            "MRHR_T1_AX_POST_GAD_Si_X_SE_13_t1c.nii.gz",
            "MRHR_T2_AX_Si_X_SE_2_t2.nii.gz",
            "T1_AX_Si_X_SE_10_t1.nii.gz",
        ],
        {"study": ALL},
    ),
    "words behind the case": (["p/x_t1.nii", "p/x_brain_t2.nii"], {"p": ["t1", "t2"]}),
    "the same names in every folder": (
        ["anna/scan_t1.nii", "anna/scan_t2.nii", "bob/scan_t1.nii", "carl/scan_t1.nii", "carl/scan_flair.nii"],
        {"anna": ["t1", "t2"], "bob": ["t1"], "carl": ["flair", "t1"]},
    ),
    "a folder below each patient": (
        ["anna/native/t1.nii", "anna/native/t2.nii", "bob/native/t1.nii"],
        {"anna_native": ["t1", "t2"], "bob_native": ["t1"]},
    ),
    "many patients in one folder": (
        ["anna_t1.nii", "anna_t2.nii", "bob_t1.nii", "bob_flair.nii"],
        {"anna": ["t1", "t2"], "bob": ["flair", "t1"]},
    ),
    "a folder per modality": (
        ["T1/p01_t1.nii", "T2/p01_t2.nii", "T1/p02_t1.nii"],
        {"p01": ["t1", "t2"], "p02": ["t1"]},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_common_layouts_and_spellings(name: str, tmp_path: Path) -> None:
    files, expected = READ[name]
    scan = scan_studies(_touch(tmp_path / "study", *files))
    assert scan.errors == []
    assert _held(scan) == expected
    assert sorted(file.path.relative_to(tmp_path / "study").as_posix() for file in scan.files) == sorted(files)
    assert scan.unused == []


AMBIGUOUS = {
    "two readings": (["p1/p1_flair.nii", "p1/p1_T2_to_T1.nii"], "p1_T2_to_T1.nii can be read as t2 or t1"),
    "two files": (["p1/p1_T1.nii", "p1/p1_t1.nii.gz"], "2 files for t1"),
    "two spellings": (["p1/p1_t1ce.nii", "p1/p1_t1_gad.nii"], "2 files for t1ce"),
    "one patient or several": (["x/anna_t1.nii", "x/anna_t2.nii", "x/scan7_flair.nii"], "anna: t1 t2; scan7: flair"),
    "numbers of patients or of series": (["x/s1_t1.nii", "x/s2_t2.nii"], "not clear whether they are one patient"),
    "two T1 of one patient": (["x/AX_t1.nii", "x/SAG_t1.nii", "x/y_t2.nii"], "not clear whether"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_an_error(name: str, tmp_path: Path) -> None:
    files, message = AMBIGUOUS[name]
    scan = scan_studies(_touch(tmp_path, "p900/p900_flair.nii", *files))
    assert list(_held(scan)) == ["p900"]
    (error,) = scan.errors
    assert message in str(error)


def test_every_file_that_is_not_used_says_why(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        *("p1/p1_flair.nii", "p1/p1_seg.nii", "p1/p1_dwi.nii", "p1/p1_brain_mask.nii", "p1/p1_t1_mask.nii"),
        *("p2/p2_t1.nii", "out/predictions.csv", "out/p1_seg.nii.gz", "old/p3_seg.nii"),
    )
    scan = scan_studies(tmp_path)
    reasons = {file.path.relative_to(tmp_path).as_posix(): file.reason for file in scan.unused}
    assert reasons == {
        "p1/p1_dwi.nii": "its name says no modality",
        "p1/p1_brain_mask.nii": "it is named like a mask of the brain",
        "p1/p1_t1_mask.nii": "it is named like a mask of t1",
        "out/p1_seg.nii.gz": "out is a folder of results",
        "old/p3_seg.nii": "it is named like the label of p3, of which there is no image",
    }
    assert {f"{file.path.name}: {file.role} of {file.case_id}" for file in scan.files if file.used} == {
        "p1_flair.nii: flair of p1",
        "p1_seg.nii: label of p1",
        "p2_t1.nii: t1 of p2",
    }


def test_predictions_written_into_the_cohort_are_no_labels(tmp_path: Path) -> None:
    _touch(tmp_path, "p1/p1_flair.nii", "predictions/p1_seg.nii.gz", "predictions/predictions.csv")
    (study,) = scan_studies(tmp_path).studies
    assert study.label is None


def test_a_label_with_another_name_belongs_to_the_case_of_its_folder(tmp_path: Path) -> None:
    (study,) = scan_studies(_touch(tmp_path / "p1", "flair.nii", "t1.nii", "Tumor_Segmentation.nii")).studies
    assert study.label == tmp_path / "p1/Tumor_Segmentation.nii"


def _label(path: Path, *values: int) -> None:
    data = np.zeros((3, 3, 3), np.uint8)
    data.flat[: len(values)] = values
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


@pytest.mark.parametrize(("values", "edition"), [((1, 2, 4), "brats2020"), ((1, 2, 3), "generic"), ((1, 2), "generic")])
def test_label_values_decide_the_edition_where_names_do_not(
    values: tuple[int, ...], edition: str, tmp_path: Path
) -> None:
    _touch(tmp_path, "p1/p1_t1ce.nii.gz", "p2/p2_t1ce.nii.gz")
    _label(tmp_path / "p1/p1_seg.nii.gz", 1)
    _label(tmp_path / "p2/p2_seg.nii.gz", *values)
    scan = scan_studies(tmp_path)
    assert scan.edition.name == edition
    assert {study.edition for study in scan.studies} == {edition}
    assert bool(scan.notes) == (edition == "brats2020")
    assert scan_studies(tmp_path, "generic").edition.name == "generic"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.dcm", b"", "a DICOM file.*medmap prepare"),
        ("IM0001", b"\0" * 128 + b"DICM", "a DICOM file.*medmap prepare"),
        ("a.nii.gz", gzip.compress(b"x", mtime=0), "one NIfTI image.*folder.*--flair a.nii.gz"),
        ("a.zip", b"PK", "an archive; unpack"),
        ("a.mha", b"", "an image in another format than NIfTI; convert"),
        ("a.txt", b"", r".*manifest \(.csv, .json\)"),
    ],
)
def test_a_file_in_place_of_a_folder_says_what_it_is(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotADirectoryError, match=f"{name} is {message}"):
        scan_cohort(tmp_path / name)


@pytest.mark.parametrize("name", ["IM0001", "1.2.840.1", "a.dcm", "a.IMA"])
def test_a_folder_of_dicom_says_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / name).write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(ValueError, match=r"folder of DICOM files: medmap prepare .* \(1 file\)"):
        scan_cohort(tmp_path)


@pytest.mark.parametrize("name", ["a#b", "a$b", "$1+1", "@x", "%x", "a b", "ä"])
def test_folder_names_are_literal(tmp_path: Path, name: str) -> None:
    (study,) = scan_studies(_touch(tmp_path / name, "t1.nii.gz", "flair.nii.gz")).studies
    assert study.case_id == name


@needs_real
def test_real_studies_are_read_whatever_their_names() -> None:
    native = scan_studies(REAL / "TCGA-FG-6692/native")
    assert _held(native) == {"TCGA-FG-6692_native": ALL}
    assert native.errors == []
    assert native.unused == []
    everything = scan_studies(REAL)
    assert _held(everything) == {"TCGA-DU-7294": ALL, "TCGA-FG-6692": ALL, "TCGA-FG-6692_native": ALL}
    assert [file.path.name for file in everything.unused] == ["TCGA-DU-7294_reference_fusion.nii.gz"]
