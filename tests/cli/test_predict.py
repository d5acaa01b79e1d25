"""``medmap predict`` on good and bad input; the network has random weights, since only the handling matters here."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from medmap_monai.cli.main import app
from medmap_monai.data.training_cases import TrainingCases, write_training_cases
from medmap_monai.modalities import BRATS
from medmap_monai.networks.unet import ModalityUNet
from medmap_monai.transforms.load_study import LoadStudyd
from medmap_monai.transforms.nifti_provenance import read_provenance
from medmap_monai.transforms.restore import SaveLabelMap
from medmap_monai.utils.files import file_sha256


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


def test_a_single_study_folder_that_is_not_as_in_training(
    predict: Callable[..., Result], studies: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "brats_unet_dropout" / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    for value in (value for value in state.values() if value.shape == (4,)):
        value[:] = torch.tensor([0.0, 0.0, 1e3, 0.0])  # biases of the heads: all of the brain is oedema
    torch.save(state, weights)
    write_training_cases(weights, TrainingCases({}, {}, window=(24, 24, 24), orientation="RAS"))
    result = predict(studies / "BraTS20_Training_002")
    assert result.exit_code == 0
    assert list(table(tmp_path)) == ["BraTS20_Training_002"]
    for note in ("32 x 32 x 32 voxels is not that of the training (24 x 24 x 24)", "as LPS and was trained on RAS"):
        assert result.output.count(note) == 1
        assert note in "".join(record(tmp_path, 2)["notes"])
    flag = "100% of what the images show is segmented (plausible: up to 35%)"
    assert flag in record(tmp_path, 2)["plausibility"]
    assert flag in table(tmp_path)["BraTS20_Training_002"]["plausibility"]
    assert result.output.count(flag) == 1


def record(folder: Path, number: int) -> dict[str, Any]:
    return json.loads((folder / f"out/BraTS20_Training_{number:03d}_seg.json").read_text())


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


def corrected_by_hand(path: Path, keep_header: bool) -> bytes:
    """Change the map as an editor does, which may or may not keep what the header says of its origin."""
    image = nib.load(path)
    values = np.asarray(image.dataobj).copy()
    values[0, 0, 0] = 1 - values[0, 0, 0]
    nib.save(nib.Nifti1Image(values, image.affine, image.header if keep_header else None), path)
    return path.read_bytes()


@pytest.mark.parametrize("keep_header", [True, False])
def test_a_map_corrected_by_hand_is_kept_when_its_study_is_done_again(
    keep_header: bool, predict: Callable[..., Result], studies: Path, tmp_path: Path
) -> None:
    predict(studies)
    target = tmp_path / "out/BraTS20_Training_001_seg.nii.gz"
    as_written = target.read_bytes()
    corrected = corrected_by_hand(target, keep_header)
    assert predict(studies).exit_code == 0
    assert target.read_bytes() == corrected  # done already: left alone
    assert predict(studies, "--overwrite").exit_code == 0
    assert target.read_bytes() == as_written
    (kept,) = (tmp_path / "out/replaced").iterdir()
    assert kept.name.startswith("BraTS20_Training_001_seg_")
    assert kept.read_bytes() == corrected
    assert f"kept as replaced/{kept.name}" in table(tmp_path)["BraTS20_Training_001"]["notes"]
    assert predict(studies, "--overwrite").exit_code == 0  # nothing was changed since: nothing more to keep
    assert [path.name for path in (tmp_path / "out/replaced").iterdir()] == [kept.name]
    assert "replaced" not in table(tmp_path)["BraTS20_Training_001"]["notes"]


def test_results_of_other_weights_inputs_or_settings_are_made_again(
    predict: Callable[..., Result], studies: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    predict(studies)
    first = {number: record(tmp_path, number) for number in (1, 2, 3)}
    before = {number: (tmp_path / f"out/BraTS20_Training_{number:03d}_seg.nii.gz").read_bytes() for number in (1, 2, 3)}

    # a sequence more, another content of the same name, the same content anew
    shutil.copy(phantom_cohort / "BraTS20_Training_003/BraTS20_Training_003_t2.nii.gz", path_of(studies, 3, "t2"))
    shutil.copy(phantom_cohort / "BraTS20_Training_004/BraTS20_Training_004_t2.nii.gz", path_of(studies, 2, "t2"))
    shutil.copy(path_of(studies, 1, "t1"), tmp_path / "copy")
    os.replace(tmp_path / "copy", path_of(studies, 1, "t1"))
    result = predict(studies)
    assert result.exit_code == 0, result.output
    assert "1 was done already" in result.output
    assert "1 of them again: new since: t2" in result.output
    assert "1 of them again: changed since: t2" in result.output
    assert record(tmp_path, 1) == first[1]
    assert table(tmp_path)["BraTS20_Training_003"]["modalities_used"] == "t1+t2"

    # other weights: everything, and back again, to the same bytes
    weights = tmp_path / "brats_unet_dropout/models/model.pt"
    old = weights.read_bytes()
    state = torch.load(weights, weights_only=True)
    torch.save({key: value * 1.5 for key, value in state.items()}, weights)
    result = predict(studies)
    assert "3 of them again: made with other weights" in result.output
    assert record(tmp_path, 1)["weights"]["sha256"] != first[1]["weights"]["sha256"]
    weights.write_bytes(old)
    assert "3 of them again: made with other weights" in predict(studies).output
    assert (tmp_path / "out/BraTS20_Training_001_seg.nii.gz").read_bytes() == before[1]

    # other windows; where and how fast it runs changes nothing
    assert "3 were done already" in predict(studies, "--set", "sw_batch_size=3").output
    assert (
        "3 of them again: made with another configuration" in predict(studies, "--set", "inferer#overlap=0.25").output
    )


def test_a_label_map_tells_where_it_comes_from(predict: Callable[..., Result], studies: Path, tmp_path: Path) -> None:
    reliability = tmp_path / "reliability.json"
    cell = {"mean": 0.81, "ci": [0.7, 0.9], "n": 12}
    content = {"format": 1, "minimum_dice": 0.5, "minimum_share": 0.75, "modalities": list(BRATS), "cases": 12}
    content |= {"data": "data of a test", "protocol": "clinical", "subsets": {"flair+t2": {"WT": cell}}}
    reliability.write_text(json.dumps(content))
    assert predict(studies, "--reliability", str(reliability)).exit_code == 0
    found, row = record(tmp_path, 2), table(tmp_path)["BraTS20_Training_002"]
    header = read_provenance(tmp_path / "out/BraTS20_Training_002_seg.nii.gz")
    assert header is not None
    assert header["labels"] == {"0": "background", "1": "NCR", "2": "ED", "4": "ET"}
    weights = file_sha256(tmp_path / "brats_unet_dropout/models/model.pt")
    files = {name: file_sha256(path_of(studies, 2, name)) for name in ("flair", "t2")}
    assert header["inputs"] == files
    for told in (found, header):
        assert told["weights"] == {"file": "model.pt", "sha256": weights}
        assert told["modalities"] == {"used": ["flair", "t2"], "absent": ["t1ce", "t1"], "unusable": []}
        assert (told["edition"], told["model"], told["version"]) == ("brats2020", "brats_unet_dropout", "0.1.0")
        assert told["fingerprint"] == header["fingerprint"]
    assert {name: file["sha256"] for name, file in found["inputs"].items()} == files
    assert found["expected"]["dice"]["WT"]["mean"] == 0.81
    assert (row["expected_dice"], row["label_values"]) == ("WT=0.81", "NCR=1 ED=2 ET=4")
    assert row["weights_sha256"] == weights
    assert row["synthetic"] == "no"  # copied out of the phantom cohort: nothing marks the folder
    assert float(row["volume_ml_ED"]) == found["volumes"]["ED"]["ml"]
    snap = (tmp_path / "out/labels_brats2020.label").read_text().splitlines()
    assert [line.split()[0] for line in snap[1:]] == ["0", "1", "2", "4"]
    assert '"ET"' in snap[-1]
    slicer = (tmp_path / "out/labels_brats2020.ctbl").read_text().splitlines()
    assert [line.split()[:2] for line in slicer[1:]] == [["0", "background"], ["1", "NCR"], ["2", "ED"], ["4", "ET"]]


def test_expected_quality_of_other_weights_is_not_told(
    predict: Callable[..., Result], studies: Path, tmp_path: Path
) -> None:
    beside = tmp_path / "brats_unet_dropout/models/reliability.json"
    content = {"format": 1, "modalities": list(BRATS), "subsets": {}, "checkpoint": {"file": "x", "sha256": "0" * 64}}
    beside.write_text(json.dumps(content))
    result = predict(studies / "BraTS20_Training_003")
    assert result.exit_code == 0
    assert "expected Dice" not in result.output
    beside.write_text("[" * 100_000)
    assert predict(studies / "BraTS20_Training_002").exit_code == 0


def test_whatever_goes_wrong_with_one_study_is_its_row(
    predict: Callable[..., Result], studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_load(self: LoadStudyd, data: dict[str, Any]) -> dict[str, Any]:
        if data["case_id"].endswith("1"):
            raise MemoryError("Unable to allocate 33.0 GiB")
        return load(self, data)

    def failing_save(self: SaveLabelMap, label_map: Any, provenance: Any = None) -> Path:
        if label_map.meta["case_id"].endswith("2"):
            raise OSError(28, "No space left on device")
        return save(self, label_map, provenance)

    def failing_network(self: ModalityUNet, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    load, save = LoadStudyd.__call__, SaveLabelMap.__call__
    assert predict(studies / "BraTS20_Training_002").exit_code == 0
    monkeypatch.setattr(LoadStudyd, "__call__", failing_load)
    monkeypatch.setattr(SaveLabelMap, "__call__", failing_save)
    result = predict(studies, "--overwrite")
    assert result.exit_code == 1
    rows = table(tmp_path)
    assert [row["status"] for row in rows.values()] == ["failed", "failed", "ok"]
    assert "BraTS20_Training_001: not enough memory" in rows["BraTS20_Training_001"]["message"]
    assert "No space left" in rows["BraTS20_Training_002"]["message"]
    assert not (tmp_path / "out/BraTS20_Training_002_seg.nii.gz").exists()  # its record says that there is none
    monkeypatch.undo()
    monkeypatch.setattr(ModalityUNet, "forward", failing_network)
    assert predict(studies, "--overwrite").exit_code == 1
    assert all("not enough memory" in row["message"] for row in table(tmp_path).values())
    monkeypatch.undo()
    assert predict(studies).exit_code == 0
    assert [row["status"] for row in table(tmp_path).values()] == ["ok"] * 3


def test_not_a_number_is_an_error_that_names_the_case(
    predict: Callable[..., Result], studies: Path, tmp_path: Path
) -> None:
    change(path_of(studies, 2, "t2"), lambda d: np.where(d == d.max(), np.float32(3e38), d))
    result = predict(studies)
    assert result.exit_code == 1
    assert {case[-1]: row["status"] for case, row in table(tmp_path).items()} == {"1": "ok", "2": "failed", "3": "ok"}
    assert "BraTS20_Training_002" in result.output
    weights = tmp_path / "brats_unet_dropout/models/model.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({key: value * float("nan") for key, value in state.items()}, weights)
    result = predict(studies)
    assert result.exit_code == 1
    assert "NaN or Inf" in result.output
    assert "model.pt" in result.output


def test_two_processes_write_one_folder(
    make_bundle: Callable[..., Path], random_weights: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(weights=random_weights)
    command = [sys.executable, "-m", "medmap_monai.cli.main", "predict", "", "--bundle", str(bundle)]
    command += ["--overlay", "phantom", "--output", str(tmp_path / "out"), "--trust"]
    running = []
    for part in ((1, 2, 3), (3, 4, 5)):
        folder = tmp_path / f"part{part[0]}"
        for number in part:
            shutil.copytree(
                phantom_cohort / f"BraTS20_Training_{number:03d}", folder / f"BraTS20_Training_{number:03d}"
            )
        given = [*command[:4], str(folder), *command[5:]]
        running.append(subprocess.Popen(given, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL))
    assert [process.wait() for process in running] == [0, 0]
    assert list(table(tmp_path)) == [f"BraTS20_Training_{number:03d}" for number in (1, 2, 3, 4, 5)]
    assert {row["status"] for row in table(tmp_path).values()} == {"ok"}


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


def test_a_row_that_a_killed_run_did_not_write_is_added(
    predict: Callable[..., Result], studies: Path, tmp_path: Path
) -> None:
    predict(studies)
    before = table(tmp_path)
    lines = (tmp_path / "out/predictions.csv").read_text().splitlines(keepends=True)
    (tmp_path / "out/predictions.csv").write_text("".join(line for line in lines if "Training_002" not in line))
    result = predict(studies)
    assert "3 were done already" in result.output
    assert table(tmp_path) == before


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


def test_other_label_values_are_written_anew(
    predict: Callable[..., Result], phantom_cohort: Path, tmp_path: Path
) -> None:
    case = phantom_cohort / "BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz"
    manifest, written = tmp_path / "m.json", []
    for edition in ("brats2023", "brats2020"):
        manifest.write_text(json.dumps({"edition": edition, "cases": [{"case_id": "x", "flair": str(case)}]}))
        result = predict(manifest, "--set", "edition=null")
        assert result.exit_code == 0, result.output
        written.append(np.unique(np.asarray(nib.load(tmp_path / "out/x_seg.nii.gz").dataobj)).max())
    assert "1 of them again: written with other label values" in result.output
    assert written == [3, 4]


def test_results_are_not_written_among_the_images(
    predict: Callable[..., Result], studies: Path, tmp_path: Path
) -> None:
    case = studies / "BraTS20_Training_001"
    label = case / "BraTS20_Training_001_seg.nii.gz"
    shutil.copy(path_of(studies, 1, "t1"), label)
    before = sorted(path.name for path in case.iterdir())
    for output in (studies, case):
        result = predict(studies, "--output", str(output))
        assert result.exit_code == 1
        assert "holds images of the studies" in result.output
    assert sorted(path.name for path in case.iterdir()) == before


def test_a_name_in_another_encoding_is_one_study_as_any(
    predict: Callable[..., Result], phantom_cohort: Path, tmp_path: Path
) -> None:
    flair = phantom_cohort / "BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz"
    for name in (b"Adam", b"M\xfcller", b"Zoe", b"b" * 228):
        folder = tmp_path / "in" / os.fsdecode(name)
        folder.mkdir(parents=True)
        shutil.copy(flair, folder / "flair.nii.gz")
    result = predict(tmp_path / "in")
    assert result.exit_code == 0, result.output
    assert {row["status"] for row in table(tmp_path).values()} == {"ok"}
    assert len(table(tmp_path)) == len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 4
    assert "4 were done already" in predict(tmp_path / "in").output
