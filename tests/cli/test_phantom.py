"""``medmap phantom``."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pytest
import typer
from typer.testing import CliRunner, Result

from medmap_monai.cli.phantom import phantom
from medmap_monai.data.studies import find_studies


def _run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(phantom)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_cohort_with_absent_files(tmp_path: Path) -> None:
    arguments = [tmp_path / "c", "--cases", 3, "--shape", 18, 17, 16, "--seed", 4, "--only", "last=flair+t2"]
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    assert "synthetic cohort written: 3 brats2020 cases of 18x17x16 voxels" in result.output
    assert "missing rate" in result.output
    studies = find_studies(tmp_path / "c")
    assert [list(study.images) for study in studies] == [["flair", "t1ce", "t1", "t2"]] * 2 + [["flair", "t2"]]
    again = _run(*arguments)
    assert again.exit_code == 0
    assert "is there already" in again.output


def test_hearts_have_their_own_default_shape(tmp_path: Path) -> None:
    result = _run(tmp_path / "c", "--edition", "myops2020", "--cases", 1, "--oblique")
    assert result.exit_code == 0, result.output
    (study,) = find_studies(tmp_path / "c")
    image = nib.load(study.images["lge"].path)
    assert image.shape == (96, 96, 10)
    assert nib.affines.obliquity(image.affine).min() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--edition", "bids"], "allowed are brats2018"),
        (["--only", "last"], "must look like"),
        (["--only", "9=t1"], "allowed are 1 to 2"),
        (["--only", "1=dwi"], "dwi"),
        (["--missing-rates", "t1"], "t1=0.2"),
        (["--shape", 4, 4, 4], "16 voxels"),
    ],
)
def test_bad_arguments_end_with_a_message(tmp_path: Path, arguments: list[object], message: str) -> None:
    result = _run(tmp_path / "c", "--cases", 2, "--shape", 16, 16, 16, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "c").exists()


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    result = _run(tmp_path, "--cases", 1)
    assert result.exit_code == 1
    assert "not a phantom cohort" in result.output


def test_help_teaches_with_an_example() -> None:
    result = _run("--help")
    assert result.exit_code == 0
    assert "Example: medmap phantom cohort --cases 24" in " ".join(result.output.split())
