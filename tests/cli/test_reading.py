"""What the commands say of the files of a folder, and one study by its files."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from medmap_monai.cli.main import app

CASE = "BraTS20_Training_001"


@pytest.fixture
def studies(phantom_cohort: Path, tmp_path: Path) -> Path:
    """Two studies, beside them a file that no name explains."""
    folder = tmp_path / "studies"
    for number, names in ((1, ("flair", "t1ce", "seg")), (2, ("t2", "seg"))):
        case = f"BraTS20_Training_{number:03d}"
        (folder / case).mkdir(parents=True)
        for name in names:
            shutil.copy(phantom_cohort / case / f"{case}_{name}.nii.gz", folder / case)
    shutil.copy(phantom_cohort / CASE / f"{CASE}_t1.nii.gz", folder / CASE / "[adc].nii.gz")
    return folder


@pytest.fixture
def run(make_bundle: Callable[..., Path], random_weights: Path, tmp_path: Path) -> Callable[..., Result]:
    """``medmap COMMAND ...`` with a small bundle."""
    bundle = make_bundle(weights=random_weights)

    def run(*arguments: str) -> Result:
        options = ["--bundle", str(bundle), "--output", str(tmp_path / "out"), "--overlay", "phantom"]
        return CliRunner().invoke(app, [*arguments, *options])

    return run


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def test_info_lists_every_file(studies: Path) -> None:
    result = CliRunner().invoke(app, ["info", str(studies)])
    assert result.exit_code == 0
    assert f"flair    {CASE}/{CASE}_flair.nii.gz ({CASE})" in result.output
    assert f"label    {CASE}/{CASE}_seg.nii.gz ({CASE})" in result.output
    assert f"{CASE}/[adc].nii.gz: its name says no modality" in result.output
    assert CliRunner().invoke(app, ["info", str(studies), "--strict"]).exit_code == 1


def test_info_of_studies_that_cannot_be_used_is_an_error(studies: Path) -> None:
    shutil.copy(studies / CASE / f"{CASE}_flair.nii.gz", studies / CASE / f"{CASE}_FLAIR.nii.gz")
    result = CliRunner().invoke(app, ["info", str(studies)])
    assert result.exit_code == 1
    assert "2 files for flair" in result.output


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_unused_files_are_told_before_the_run_and_refused_under_strict(
    command: str, run: Callable[..., Result], studies: Path, tmp_path: Path
) -> None:
    result = run(command, str(studies), "--strict")
    assert result.exit_code == 1
    assert "[adc].nii.gz: its name says no modality" in result.output
    assert not (tmp_path / "out").exists()
    if command == "predict":
        result = run(command, str(studies))
        assert result.exit_code == 0, result.output
        assert "1 NIfTI file is not used" in result.output
        (studies / CASE / "[adc].nii.gz").unlink()
        assert "not used" not in run(command, str(studies), "--strict").output


def test_one_study_by_its_files_whatever_their_names(run: Callable[..., Result], studies: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x#1 $y"
    folder.mkdir()
    flair = shutil.copy(studies / CASE / f"{CASE}_flair.nii.gz", folder / "series 5.nii.gz")
    t1ce = shutil.copy(studies / CASE / f"{CASE}_t1ce.nii.gz", folder / "T1-and-T2.nii.gz")
    result = run("predict", "--flair", str(flair), f"--t1ce={t1ce}", "--case-id", "mine")
    assert result.exit_code == 0, result.output
    (row,) = _rows(tmp_path / "out").values()
    assert (row["case_id"], row["modalities_used"]) == ("mine", "flair+t1ce")
    assert (tmp_path / "out/mine_seg.nii.gz").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--flare", "a.nii.gz"),
            "no such option: --flare; the modalities of the bundle are --flair, --t1ce",
        ),
        (("--flair", "nowhere.nii.gz"), "--flair: nowhere.nii.gz does not exist"),
        (("folder", "--flair", "a.nii.gz"), "give either folder or the files"),
        ((), "give a folder of studies"),
    ],
)
def test_wrong_use_says_what_is_allowed(run: Callable[..., Result], arguments: tuple[str, ...], message: str) -> None:
    result = run("predict", *arguments)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())


def test_a_single_image_names_the_way(run: Callable[..., Result], studies: Path) -> None:
    result = run("predict", str(studies / CASE / f"{CASE}_flair.nii.gz"))
    assert result.exit_code == 1
    assert "is one NIfTI image" in result.output
    assert "--flair" in result.output
