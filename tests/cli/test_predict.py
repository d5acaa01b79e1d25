"""``medmap predict`` on good and bad input; the network has random weights, since only the handling matters here."""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from medmap_monai.cli.main import app


@pytest.fixture
def studies(phantom_cohort: Path, tmp_path: Path) -> Path:
    """Three studies without labels: all files; FLAIR and T2; T1 alone."""
    folder = tmp_path / "studies"
    kept = {1: ("flair", "t1ce", "t1", "t2"), 2: ("flair", "t2"), 3: ("t1",)}
    for number, names in kept.items():
        case = f"BraTS20_Training_{number:03d}"
        (folder / case).mkdir(parents=True)
        for name in names:
            shutil.copy(phantom_cohort / case / f"{case}_{name}.nii.gz", folder / case)
    return folder


@pytest.fixture
def predict(make_bundle: Callable[..., Path], random_weights: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``medmap predict`` on a folder with the phantom overlay's network."""
    bundle = make_bundle(weights=random_weights)

    def run(folder: Path, *options: str, overlay: bool = True) -> Result:
        arguments = ["predict", str(folder), "--bundle", str(bundle), "--output", str(tmp_path / "out")]
        return CliRunner().invoke(app, [*arguments, *(["--overlay", "phantom"] if overlay else []), *options])

    return run


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "out/predictions.csv").open(newline="") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def path_of(studies: Path, number: int, name: str) -> Path:
    case = f"BraTS20_Training_{number:03d}"
    return studies / case / f"{case}_{name}.nii.gz"


def change(path: Path, edit: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    image = nib.load(path)
    data = edit(np.asarray(image.dataobj, dtype=np.float32))
    nib.save(nib.Nifti1Image(data, image.affine if affine is None else affine), path)


def test_every_study_gives_a_label_map_on_its_own_grid_and_a_row(
    predict: Callable[..., Result], studies: Path, tmp_path: Path
) -> None:
    result = predict(studies)
    assert result.exit_code == 0, result.output
    rows = table(tmp_path)
    assert [row["modalities_used"] for row in rows.values()] == ["flair+t1ce+t1+t2", "flair+t2", "t1"]
    assert [row["modalities_absent"] for row in rows.values()] == ["", "t1ce+t1", "flair+t1ce+t2"]
    for number, reference in ((1, "flair"), (2, "flair"), (3, "t1")):
        row = rows[f"BraTS20_Training_{number:03d}"]
        written = nib.load(tmp_path / "out" / row["output"])
        image = nib.load(path_of(studies, number, reference))
        assert written.shape == image.shape
        np.testing.assert_array_equal(written.affine, image.affine)
        values = np.asarray(written.dataobj)
        assert set(np.unique(values)) <= {0, 1, 2, 4}
        for value, name in ((1, "NCR"), (2, "ED"), (4, "ET")):
            count = int((values == value).sum())
            assert int(row[f"voxels_{name}"]) == count
            assert float(row[f"volume_ml_{name}"]) == pytest.approx(count / 1000, abs=5e-4)  # 1 mm voxels
        assert float(row["seconds"]) >= 0


def test_a_single_study_folder(predict: Callable[..., Result], studies: Path, tmp_path: Path) -> None:
    assert predict(studies / "BraTS20_Training_002").exit_code == 0
    assert list(table(tmp_path)) == ["BraTS20_Training_002"]


def test_finished_studies_are_skipped_unless_overwrite(
    predict: Callable[..., Result], studies: Path, tmp_path: Path
) -> None:
    predict(studies)
    target = tmp_path / "out/BraTS20_Training_001_seg.nii.gz"
    target.write_bytes(b"kept")
    result = predict(studies)
    assert result.exit_code == 0
    assert "3 were done already" in result.output
    assert target.read_bytes() == b"kept"
    assert len(table(tmp_path)) == 3
    assert predict(studies, "--overwrite").exit_code == 0
    assert nib.load(target).shape == (32, 32, 32)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:3000]), "cannot be read"),
    "not an image": (lambda p: p.write_bytes(gzip.compress(b"x" * 1000)), "cannot be read"),
    "empty file": (lambda p: p.write_bytes(b""), "cannot be read"),
    "NaN": (lambda p: change(p, lambda d: np.where(d == d.max(), np.nan, d)), "NaN or Inf"),
    "Inf": (lambda p: change(p, lambda d: np.where(d == d.max(), np.inf, d)), "NaN or Inf"),
    "shape": (lambda p: change(p, lambda d: d[:, :, :-1]), "has shape (32, 32, 31)"),
    "affine": (lambda p: change(p, lambda d: d, np.diag([1.0, 2, 1, 1])), "lie differently in space"),
    "4-D": (lambda p: change(p, lambda d: d[..., None].repeat(2, -1)), "a 3-D volume is expected"),
    "two files": (lambda p: shutil.copy(p, p.with_name(p.name[: -len(".gz")])), "2 files for t2"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_study_is_named_and_the_others_are_finished(
    predict: Callable[..., Result], studies: Path, tmp_path: Path, kind: str
) -> None:
    spoil, message = BAD[kind]
    path = path_of(studies, 2, "t2")
    if kind == "two files":
        nib.save(nib.load(path), path.with_name(path.name[: -len(".gz")]))
    else:
        spoil(path)
    result = predict(studies)
    assert result.exit_code == 1
    for text in ("BraTS20_Training_002", path.name, message):
        assert text in result.output
    rows = table(tmp_path)
    assert {case: row["status"] for case, row in rows.items()} == {
        "BraTS20_Training_001": "ok",
        "BraTS20_Training_002": "failed",
        "BraTS20_Training_003": "ok",
    }
    assert message in rows["BraTS20_Training_002"]["message"]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.nii.gz")) == [
        "BraTS20_Training_001_seg.nii.gz",
        "BraTS20_Training_003_seg.nii.gz",
    ]


def test_resample_brings_grids_together(predict: Callable[..., Result], studies: Path, tmp_path: Path) -> None:
    change(path_of(studies, 2, "t2"), lambda d: d[:, :, :-1])
    assert predict(studies, "--resample").exit_code == 0
    assert table(tmp_path)["BraTS20_Training_002"]["modalities_used"] == "flair+t2"


def test_a_study_without_any_modality_is_named(predict: Callable[..., Result], studies: Path) -> None:
    path_of(studies, 3, "t1").rename(path_of(studies, 3, "seg"))
    result = predict(studies)
    assert result.exit_code == 1
    assert "BraTS20_Training_003" in result.output


def test_nothing_to_segment(predict: Callable[..., Result], tmp_path: Path) -> None:
    result = predict(tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.output
    (tmp_path / "empty").mkdir()
    result = predict(tmp_path / "empty")
    assert result.exit_code == 1
    assert "empty" in result.output


def test_weights_of_another_network_are_named(predict: Callable[..., Result], studies: Path) -> None:
    result = predict(studies, overlay=False)
    assert result.exit_code == 1
    assert "model.pt does not fit the network" in result.output
    assert "phantom.json" in result.output


def test_output_that_cannot_be_a_folder(predict: Callable[..., Result], studies: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = predict(studies)
    assert result.exit_code == 1
    assert "is not writable" in result.output


def test_no_bundle_and_unknown_overlay(studies: Path, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    arguments = ["predict", str(studies), "--output", str(tmp_path / "out"), "--bundle"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "is not a bundle" in result.output
    result = CliRunner().invoke(app, [*arguments, str(make_bundle()), "--overlay", "fantom"])
    assert result.exit_code == 1
    assert "phantom" in result.output


def test_a_killed_run_leaves_complete_files_only(
    make_bundle: Callable[..., Path], random_weights: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(weights=random_weights)
    command = [sys.executable, "-m", "medmap_monai.cli.main", "predict", str(phantom_cohort), "--bundle", str(bundle)]
    command += ["--overlay", "phantom", "--output", str(tmp_path / "out")]
    running = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (
        not list((tmp_path / "out").glob("BraTS20*_seg.nii.gz"))
        and time.monotonic() < deadline
        and running.poll() is None
    ):
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    finished = sorted((tmp_path / "out").glob("BraTS20*_seg.nii.gz"))
    assert finished
    for path in finished:
        assert nib.load(path).get_fdata().shape == (32, 32, 32)
    again = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert again.returncode == 0
    assert len(table(tmp_path)) == 8
    assert len(list((tmp_path / "out").glob("BraTS20*_seg.nii.gz"))) == 8
