"""``medmap predict --prepare``: from a DICOM export to label maps, DICOM SEG and a page on its own slices."""

from __future__ import annotations

import csv
import json
import shutil
from html import escape
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.clinical.native_labels import native_classes
from medmap_monai.clinical.native_results import as_labelled
from medmap_monai.clinical.volume import Volume
from tests.clinical.read_seg import check_reads_back, check_with_dciodvfy, label_values
from tests.clinical.scanner import load, rigid, write_dicom_study


@pytest.fixture(scope="module")
def export(heads: dict[str, Volume], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("pacs") / "export"
    uid = write_dicom_study(folder / "patient A", {m: heads[m] for m in ("flair", "t2")})
    return folder, uid


@pytest.fixture(scope="module")
def result(
    export: tuple[Path, str], random_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str], str]:
    """Output folder, command, and what it said. The weights are random: only the way there and back counts."""
    root = tmp_path_factory.mktemp("predicted")
    bundle = root / "brats_unet_dropout"
    source = Path(__file__).resolve().parents[2] / "bundles" / "brats_unet_dropout"
    shutil.copytree(source, bundle, ignore=shutil.ignore_patterns("*.pt", "*.ts"))
    shutil.copy(random_weights, bundle / "models" / "model.pt")
    command = ["predict", str(export[0]), "--prepare", "--skull-strip", "none", "--bundle", str(bundle), "--trust"]
    command += ["--overlay", "phantom", "--output", str(root / "out")]
    done = CliRunner().invoke(app, command)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return root / "out", command, done.output


def test_every_original_image_gets_a_label_map(result: tuple[Path, list[str], str], heads: dict[str, Volume]) -> None:
    out, _, told = result
    assert "2 label maps on original images, 2 DICOM SEG" in told
    for modality in ("flair", "t2"):
        labels = load(out / "patient_A" / "native" / f"patient_A_{modality}_seg.nii.gz")
        assert labels.data.shape == heads[modality].data.shape
        np.testing.assert_allclose(labels.affine, heads[modality].affine, atol=1e-4)
        assert labels.data.any()


def test_the_label_map_lies_where_the_prediction_lies(result: tuple[Path, list[str], str]) -> None:
    """Back on the prepared grid by the transform of prepared.json, the native map is the prediction again."""
    out = result[0]
    record = json.loads((out / "prepared" / "patient_A" / "prepared.json").read_text())
    predicted = load(out / "patient_A_seg.nii.gz")
    for modality in ("flair", "t2"):
        native = load(out / "patient_A" / "native" / f"patient_A_{modality}_seg.nii.gz")
        to_own = np.asarray(record["sequences"][modality]["reference_to_own_world"])
        back = native.on_grid(predicted.data.shape, predicted.affine, to_own, "nearest")
        image = load(next((out / "prepared" / "patient_A").glob(f"*_{modality}.nii.gz")))
        inside = image.data != 0
        both = 2 * ((back > 0) & (predicted.data > 0) & inside).sum()
        assert both / ((back[inside] > 0).sum() + (predicted.data[inside] > 0).sum()) > 0.6


def test_nothing_is_segmented_where_no_image_shows_anything(
    result: tuple[Path, list[str], str], heads: dict[str, Volume]
) -> None:
    """Random weights segment air too; on the original images it is gone but for what lies within voxels of tissue."""
    from scipy.ndimage import binary_dilation

    for modality in ("flair", "t2"):
        native = load(result[0] / "patient_A" / "native" / f"patient_A_{modality}_seg.nii.gz")
        tissue = binary_dilation(heads[modality].data > 0, iterations=3)
        assert ((native.data > 0) & ~tissue).sum() < 0.02 * (native.data > 0).sum()


def test_dicom_seg_reads_back_as_the_label_map(
    result: tuple[Path, list[str], str], export: tuple[Path, str], heads: dict[str, Volume]
) -> None:
    out = result[0]
    values = label_values(out / "patient_A_seg.json")
    for modality in ("flair", "t2"):
        native = load(out / "patient_A" / "native" / f"patient_A_{modality}_seg.nii.gz")
        seg = out / "patient_A" / "dicom" / f"patient_A_{modality}_seg.dcm"
        read = check_reads_back(seg, native, values)
        assert read.StudyInstanceUID == export[1]


def test_dciodvfy_finds_no_error(result: tuple[Path, list[str], str]) -> None:
    check_with_dciodvfy((result[0] / "patient_A" / "dicom").glob("*.dcm"))


def test_the_page_says_what_was_done(result: tuple[Path, list[str], str]) -> None:
    page = (result[0] / "patient_A" / "report.html").read_text(encoding="utf-8")
    assert page.index("RESEARCH USE ONLY") < page.index("<h1>")
    for words in ("t2_tse_tra_512", "moved", "sharpness", "patient&#39;s left", "no evaluation came with them"):
        assert words in page or words.replace("&#39;", "'") in page, words
    assert "Mustermann" not in page
    assert 'src="http' not in page


def test_what_is_complete_is_kept_and_what_is_not_is_done_again(result: tuple[Path, list[str], str]) -> None:
    out, command, _ = result
    page = out / "patient_A" / "report.html"
    page.write_text("kept")
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert "1 was done already" in again.output
    assert page.read_text() == "kept"
    (out / "patient_A" / "native" / "patient_A_t2_seg.nii.gz").unlink()
    third = CliRunner().invoke(app, command)
    assert third.exit_code == 0, third.output
    assert (out / "patient_A" / "native" / "patient_A_t2_seg.nii.gz").is_file()
    assert page.read_text() != "kept"


def test_warnings_of_preparation_stand_in_every_record(result: tuple[Path, list[str], str]) -> None:
    """Whoever reads only the table, the record beside the label map, or the page must meet them."""
    out, command, _ = result
    told = "t2: poor match (sharpness 0.12, usually above 0.14): look at it"
    prepared = out / "prepared" / "patient_A" / "prepared.json"
    prepared.write_text(json.dumps({**json.loads(prepared.read_text()), "warnings": [told]}))
    done = CliRunner().invoke(app, [*command, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert told in done.output
    with (out / "predictions.csv").open(newline="") as table:
        (row,) = csv.DictReader(table)
    assert f"prepared with a warning: {told}" in row["notes"]
    assert f"prepared with a warning: {told}" in json.loads((out / "patient_A_seg.json").read_text())["notes"]
    page = (out / "patient_A" / "report.html").read_text(encoding="utf-8")
    assert page.count(escape(told)) == 1
    assert page.index(escape(told)) < page.index('id="pictures"')


def test_probabilities_are_interpolated_before_the_class_is_chosen() -> None:
    """Half-way between a background and a tumour voxel, 0.4 against 0.6: nearest labels could not know."""
    probabilities = np.zeros((2, 4, 1, 1), dtype=np.float32)
    probabilities[1, :, 0, 0] = [0.0, 0.3, 0.9, 1.0]
    probabilities[0] = 1 - probabilities[1]
    half = np.eye(4)
    half[0, 3] = 0.5
    classes = native_classes(probabilities, np.eye(4), (4, 1, 1), np.eye(4), half)
    # voxel i of the original lies at i - 0.5 of the prepared grid
    assert classes[:, 0, 0].tolist() == [0, 0, 1, 1]
    turn = rigid((0, 0, 180), (3, 0, 0))
    classes = native_classes(probabilities, np.eye(4), (4, 1, 1), np.eye(4), turn)
    assert classes[:, 0, 0].tolist() == [1, 1, 0, 0]


def test_findings_that_were_removed_do_not_come_back_on_the_original_images() -> None:
    probabilities = np.zeros((2, 20, 20, 20), dtype=np.float32)
    probabilities[1, 3:8, 3:8, 3:8] = probabilities[1, 14:16, 14:16, 14:16] = 0.9
    probabilities[0] = 1 - probabilities[1]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    labels = np.zeros((40, 40, 40), dtype=np.uint8)
    fine = np.eye(4)
    labels[6:16, 6:16, 6:16] = 1  # what is left of the label map: the large finding
    decided = as_labelled(Volume(probabilities, affine), Volume(labels, fine))
    before = native_classes(probabilities, affine, (40, 40, 40), fine, np.eye(4))
    after = native_classes(decided.data, affine, (40, 40, 40), fine, np.eye(4))
    assert before[28:31, 28:31, 28:31].any()
    assert not after[20:, 20:, 20:].any()
    np.testing.assert_array_equal(after[:20, :20, :20], before[:20, :20, :20])


def test_visits_with_files_of_one_name_get_their_results_and_old_ones_go(
    result: tuple[Path, list[str], str], phantom_cohort: Path, tmp_path: Path
) -> None:
    case, command = phantom_cohort / "BraTS20_Training_001", result[1]
    for visit in ("visit1", "visit2"):
        (tmp_path / "in" / visit).mkdir(parents=True)
        for modality in ("flair", "t2"):
            source = case / f"BraTS20_Training_001_{modality}.nii.gz"
            shutil.copy(source, tmp_path / "in" / visit / f"p_{modality}.nii.gz")
    command = ["predict", str(tmp_path / "in"), *command[2:-1], str(tmp_path / "out")]
    assert CliRunner().invoke(app, command).exit_code == 0
    for visit in ("visit1", "visit2"):
        folder = tmp_path / "out" / visit
        assert (folder / "report.html").is_file()
        assert sorted(path.name for path in (folder / "native").iterdir()) == [
            f"{visit}_flair_seg.nii.gz",
            f"{visit}_t2_seg.nii.gz",
        ]
    corrected = tmp_path / "out" / "visit1" / "native" / "visit1_t2_seg.nii.gz"
    corrected.write_bytes(b"corrected")
    (tmp_path / "in" / "visit1" / "p_t2.nii.gz").unlink()
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert not corrected.exists()
    (copy,) = (tmp_path / "out" / "visit1" / "replaced").iterdir()
    assert copy.read_bytes() == b"corrected"
    assert copy.name in done.output.replace("\n", "")


def test_files_without_a_preamble_get_their_dicom_seg(
    result: tuple[Path, list[str], str], heads: dict[str, Volume], tmp_path: Path
) -> None:
    write_dicom_study(tmp_path / "in" / "patient", {"flair": heads["flair"]})
    for path in (tmp_path / "in" / "patient").iterdir():
        bare = pydicom.Dataset()
        bare.update(pydicom.dcmread(path))
        path.unlink()
        bare.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    command = ["predict", str(tmp_path / "in"), *result[1][2:-1], str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "1 label maps on original images, 1 DICOM SEG" in done.output
