"""``prepare_folder`` on NIfTI and DICOM folders, good and bad."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.clinical.prepare_folder import PreparedStudy, prepare_folder
from medmap_monai.clinical.prepare_study import PrepareOptions
from medmap_monai.clinical.volume import Volume
from medmap_monai.data.studies import scan_studies
from tests.clinical.scanner import NUMBER, PATIENT, POSES, all_text, rigid, write_dicom_study, write_native

NAMES = {"flair": "01_AX_FLAIR", "t1ce": "02_AX_T1_POST", "t2": "03_AX_T2"}


@pytest.fixture(scope="module")
def prepared(heads: dict[str, Volume], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedStudy]:
    """The NIfTI folder and its preparation."""
    root = tmp_path_factory.mktemp("native")
    write_native(root / "visit 1", heads, NAMES)
    (study,) = prepare_folder(root, root.parent / f"{root.name}-prepared")
    assert not study.error, study.error
    return root, study


def test_sequences_meet_where_they_belong(prepared: tuple[Path, PreparedStudy], heads: dict[str, Volume]) -> None:
    study = prepared[1]
    record = study.record
    assert study.name == "visit_1"
    assert set(record["sequences"]) == {"flair", "t1ce", "t2"}
    reference = record["reference"]
    points = np.array([[x, y, z, 1.0] for x in (-30, 30) for y in (-30, 30) for z in (-30, 30)])
    to_head = np.linalg.inv(rigid(*POSES[reference]))
    for modality in heads:
        truth = rigid(*POSES[modality]) @ to_head  # world of the reference -> world of the sequence
        found = np.asarray(record["sequences"][modality]["reference_to_own_world"])
        apart = np.linalg.norm(points @ (truth - found).T, axis=1)
        assert apart.mean() < 1.5, modality
    images = [nib.load(study.folder / s["output"]["file"]) for s in record["sequences"].values()]
    for image in images:
        np.testing.assert_array_equal(image.affine, images[0].affine)
        assert image.shape == images[0].shape
        np.testing.assert_allclose(image.header.get_zooms(), 1, atol=1e-6)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")


def test_what_is_written_is_a_study_that_predict_reads(prepared: tuple[Path, PreparedStudy]) -> None:
    scan = scan_studies(prepared[1].folder)
    assert not scan.errors
    assert set(scan.studies[0].images) == {"flair", "t1ce", "t2"}
    assert scan.studies[0].label is None
    assert (prepared[1].folder / "brain_mask.nrrd").is_file()
    assert len(list((prepared[1].folder / "transforms").glob("*.tfm"))) == 2


def test_a_finished_study_is_kept(prepared: tuple[Path, PreparedStudy], tmp_path: Path) -> None:
    root, study = prepared
    output = tmp_path / "prepared"
    shutil.copytree(study.folder.parent, output)
    steps: list[str] = []
    assert prepare_folder(root, output, progress=lambda name, step: steps.append(step))[0].kept
    assert steps == ["check what is done"]


def test_a_damaged_or_changed_study_is_done_again(phantom_cohort: Path, tmp_path: Path) -> None:
    source, given = phantom_cohort / "BraTS20_Training_001", tmp_path / "in" / "flair.nii.gz"
    given.parent.mkdir()
    shutil.copy(source / "BraTS20_Training_001_flair.nii.gz", given)
    (first,) = prepare_folder(given.parent, tmp_path / "out")
    written = first.folder / first.record["sequences"]["flair"]["output"]["file"]
    assert prepare_folder(given.parent, tmp_path / "out")[0].kept
    written.write_bytes(b"damaged")
    assert not prepare_folder(given.parent, tmp_path / "out")[0].kept
    assert written.read_bytes() == given.read_bytes()
    shutil.copy(source / "BraTS20_Training_001_t2.nii.gz", given)
    assert not prepare_folder(given.parent, tmp_path / "out")[0].kept
    assert written.read_bytes() == given.read_bytes()
    assert not prepare_folder(given.parent, tmp_path / "out", PrepareOptions(orientation="RAS"))[0].kept


def test_a_study_in_brats_space_passes_through_bit_by_bit(phantom_cohort: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        case = f"BraTS20_Training_{number:03d}"
        shutil.copytree(phantom_cohort / case, tmp_path / "in" / case)
    studies = prepare_folder(tmp_path / "in", tmp_path / "out")
    assert [study.error for study in studies] == ["", ""]
    for study in studies:
        assert study.record["passed_through"]
        for modality in ("flair", "t1ce", "t1", "t2"):
            name = f"{study.name}_{modality}.nii.gz"
            assert (study.folder / name).read_bytes() == (tmp_path / "in" / study.name / name).read_bytes()
    scan = scan_studies(tmp_path / "out")
    assert scan.edition.name == "brats2020"
    assert [s.case_id for s in scan.studies] == ["BraTS20_Training_001", "BraTS20_Training_002"]


def test_names_that_nobody_else_reads_are_changed_on_the_way(phantom_cohort: Path, tmp_path: Path) -> None:
    case = phantom_cohort / "BraTS20_Training_001"
    (tmp_path / "in").mkdir()
    shutil.copy(case / "BraTS20_Training_001_flair.nii.gz", tmp_path / "in" / "t2_tirm_tra_dark-fluid_5mm.nii.gz")
    (study,) = prepare_folder(tmp_path / "in", tmp_path / "out")
    assert study.record["passed_through"]
    assert set(scan_studies(study.folder).studies[0].images) == {"flair"}


def test_one_bad_study_never_stops_the_next(phantom_cohort: Path, tmp_path: Path) -> None:
    good, bad, empty = (tmp_path / "in" / name for name in ("c_good", "a_bad", "b_strange"))
    for folder in (good, bad, empty):
        folder.mkdir(parents=True)
    source = phantom_cohort / "BraTS20_Training_001" / "BraTS20_Training_001_flair.nii.gz"
    shutil.copy(source, good / "flair.nii.gz")
    (bad / "flair.nii.gz").write_bytes(source.read_bytes()[:1000])
    shutil.copy(source, empty / "series7.nii.gz")
    result = CliRunner().invoke(app, ["prepare", str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "1 study prepared" in result.output
    assert "study a_bad: flair: flair.nii.gz cannot be read" in result.output
    assert "study b_strange: 1 image needs your word" in result.output
    assert "--flair IMAGE" in result.output
    rows = (tmp_path / "out" / "prepared.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["a_bad", "failed"], ["b_strange", "failed"], ["c_good", "ok"]]


def test_the_users_word_decides(phantom_cohort: Path, tmp_path: Path) -> None:
    source = phantom_cohort / "BraTS20_Training_001"
    (tmp_path / "in").mkdir()
    for name, modality in (("series7", "flair"), ("T2", "t2"), ("series9", "t1")):
        shutil.copy(source / f"BraTS20_Training_001_{modality}.nii.gz", tmp_path / "in" / f"{name}.nii.gz")
    command = ["prepare", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    asked = CliRunner().invoke(app, command)
    assert asked.exit_code == 1
    assert "series7" in asked.output
    assert "series9" in asked.output
    named = ["--flair", str(tmp_path / "in" / "series7.nii.gz"), "--t1", "series9.nii.gz", "--t2", "none"]
    result = CliRunner().invoke(app, [*command, *named])
    assert result.exit_code == 0, result.output
    assert "in: flair, t1" in result.output
    assert "named by the user" in result.output
    wrong = CliRunner().invoke(app, [*command, "--t1ce", "series8.nii.gz"])
    assert wrong.exit_code == 1
    assert "'series8.nii.gz' is not in the study" in wrong.output


def test_dicom_gives_the_same_and_nothing_identifying(
    heads: dict[str, Volume], prepared: tuple[Path, PreparedStudy], tmp_path: Path
) -> None:
    uid = write_dicom_study(tmp_path / "export" / "Mustermann_Erika", {m: heads[m] for m in ("flair", "t2")})
    (study,) = prepare_folder(tmp_path / "export", tmp_path / "out")
    assert not study.error, study.error
    assert study.name.startswith("study-")
    assert "named after the patient" in study.record["notes"][0]
    assert study.record["sequences"]["t2"]["source"]["label"] == "t2_tse_tra_512"
    nifti = prepared[1].record["sequences"]["t2"]["reference_to_own_world"]
    np.testing.assert_allclose(study.record["sequences"]["t2"]["reference_to_own_world"], nifti, atol=0.2)
    told = all_text(tmp_path / "out")
    for word in (*PATIENT.split("^"), NUMBER, "19500101", "20200102", "A-99", "Arzt", uid):
        assert word.lower().encode() not in told.lower(), word


def test_the_output_folder_may_not_lie_among_the_studies(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="would be taken for studies"):
        prepare_folder(tmp_path / "in", tmp_path / "in" / "out")
    with pytest.raises(FileNotFoundError, match="neither DICOM nor NIfTI"):
        prepare_folder(tmp_path / "in", tmp_path / "out")


def test_no_study_is_prepared_over_images_of_others(phantom_cohort: Path, tmp_path: Path) -> None:
    """What lies in the study's output folder is taken for an earlier preparation, and removed."""
    shutil.copytree(phantom_cohort / "BraTS20_Training_001", tmp_path / "data" / "patient")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    files = sorted((tmp_path / "data" / "patient").iterdir())
    for source in (tmp_path / "data" / "patient", tmp_path / "link" / "patient"):
        with pytest.raises(ValueError, match="holds images that are to be prepared"):
            prepare_folder(source, tmp_path / "data")
    mine = tmp_path / "nifti" / "patient" / "mine.nii.gz"
    mine.parent.mkdir(parents=True)
    shutil.copy(files[0], mine)
    (study,) = prepare_folder(tmp_path / "data" / "patient", tmp_path / "nifti")
    assert "did not write" in study.error
    assert sorted((tmp_path / "data" / "patient").iterdir()) == files
    assert list(mine.parent.iterdir()) == [mine]


def test_images_of_one_name_are_kept_apart(phantom_cohort: Path, tmp_path: Path) -> None:
    case = phantom_cohort / "BraTS20_Training_001"
    sources = {m: case / f"BraTS20_Training_001_{m}.nii.gz" for m in ("flair", "t1ce", "t1")}
    for modality, name in (("flair", "FLAIR"), ("t1ce", "T1ce")):
        (tmp_path / "folders" / "p" / name).mkdir(parents=True)
        shutil.copy(sources[modality], tmp_path / "folders" / "p" / name / "brain.nii.gz")
    (tmp_path / "swapped" / "a").mkdir(parents=True)
    shutil.copy(sources["t1ce"], tmp_path / "swapped" / "a" / "a_t1.nii.gz")
    shutil.copy(sources["t1"], tmp_path / "swapped" / "a" / "a_t1ce.nii.gz")
    given = {"t1": "a_t1ce.nii.gz", "t1ce": "a_t1.nii.gz"}
    (folders,) = prepare_folder(tmp_path / "folders", tmp_path / "out 1")
    (swapped,) = prepare_folder(tmp_path / "swapped", tmp_path / "out 2", given=given)
    for study in (folders, swapped):
        assert not study.error
        for modality, sequence in study.record["sequences"].items():
            assert (study.folder / sequence["output"]["file"]).read_bytes() == sources[modality].read_bytes()
    (twice,) = prepare_folder(tmp_path / "swapped", tmp_path / "out 2", given=dict.fromkeys(given, "a_t1.nii.gz"))
    assert "named for more than one" in twice.error


def test_a_study_that_fails_leaves_nothing_of_an_earlier_run(phantom_cohort: Path, tmp_path: Path) -> None:
    source = phantom_cohort / "BraTS20_Training_001"
    (tmp_path / "in").mkdir()
    shutil.copy(source / "BraTS20_Training_001_flair.nii.gz", tmp_path / "in" / "flair.nii.gz")
    assert not prepare_folder(tmp_path / "in", tmp_path / "out")[0].error
    label = tmp_path / "out" / "in" / "in_seg.nii.gz"
    shutil.copy(source / "BraTS20_Training_001_seg.nii.gz", label)  # somebody's own work
    assert not prepare_folder(tmp_path / "in", tmp_path / "out", PrepareOptions(orientation="RAS"))[0].kept
    shutil.copy(source / "BraTS20_Training_001_t1.nii.gz", tmp_path / "in" / "series7.nii.gz")
    (study,) = prepare_folder(tmp_path / "in", tmp_path / "out")
    assert "needs your word" in study.error
    assert list(study.folder.glob("*.nii.gz")) == [label]
    assert not prepare_folder(tmp_path / "in", tmp_path / "out", PrepareOptions(ignore_unclear=True))[0].error
    assert label.is_file()


def test_links_are_followed_and_a_broken_one_is_told(phantom_cohort: Path, tmp_path: Path) -> None:
    flair = phantom_cohort / "BraTS20_Training_001" / "BraTS20_Training_001_flair.nii.gz"
    for folder in ("in/a", "store/b"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(flair, tmp_path / folder / "flair.nii.gz")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "store" / "b")
    (tmp_path / "in" / "b" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a" / "t2.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    first, second = prepare_folder(tmp_path / "in", tmp_path / "out")
    assert "t2.nii.gz" in first.error
    assert (second.name, second.error) == ("b", "")


def test_patients_with_numbers_are_no_sequences(phantom_cohort: Path, tmp_path: Path) -> None:
    """The end of "patient1" reads T1, that of "patient2" T2: two patients are not one study."""
    for number in (1, 2):
        folder = tmp_path / "in" / f"patient{number}"
        folder.mkdir(parents=True)
        shutil.copy(phantom_cohort / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii.gz", folder / "scan.nii.gz")
    assert [study.name for study in prepare_folder(tmp_path / "in", tmp_path / "out")] == ["patient1", "patient2"]


def test_a_sequence_that_was_left_out_is_left_out_again(heads: dict[str, Volume], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Volume(np.round(rng.uniform(0, 500, heads["t2"].data.shape)).astype(np.float32), heads["t2"].affine)
    write_native(tmp_path / "in" / "visit", {**heads, "t2": noise}, NAMES)
    options = PrepareOptions(skull_strip="none")
    (first,) = prepare_folder(tmp_path / "in", tmp_path / "out", options)
    (kept,) = prepare_folder(tmp_path / "in", tmp_path / "out", options)
    assert kept.kept
    assert list(kept.sources) == list(first.sources) == ["flair", "t1ce"]


def test_what_cannot_be_registered_is_left_out_or_refused(heads: dict[str, Volume], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Volume(np.round(rng.uniform(0, 500, heads["t2"].data.shape)).astype(np.float32), heads["t2"].affine)
    write_native(tmp_path / "in" / "pair", {"t1ce": heads["t1ce"], "t2": noise}, NAMES)
    options = PrepareOptions(skull_strip="none")
    (pair,) = prepare_folder(tmp_path / "in", tmp_path / "out", options)
    assert "nothing could be registered to t1ce" in pair.error
    assert "--t2 none" in pair.error
    assert not list(pair.folder.glob("*.nii.gz"))
    (alone,) = prepare_folder(tmp_path / "in", tmp_path / "out", options, {"t2": "none"})
    assert list(alone.record["sequences"]) == ["t1ce"]


def test_prepared_json_says_what_was_done(prepared: tuple[Path, PreparedStudy]) -> None:
    record = json.loads((prepared[1].folder / "prepared.json").read_text())
    assert record["software"]["SimpleITK"]
    assert record["skull_strip"]["reason"] == "the images show a brain alone"
    flair = record["sequences"]["flair"]
    assert flair["recognised"] == "file name says 'flair'"
    assert record["sequences"]["t2"]["registration"]["sharpness"] > 0.1
    assert len(flair["source_sha256"]) == len(flair["output"]["sha256"]) == 64
    assert any(step.startswith("register") for step in record["seconds"])
