"""The commands of the page "from PACS to segmentation", as they stand there, on a small DICOM export."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.clinical.volume import Volume
from tests.clinical.scanner import write_dicom_study

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "how-to" / "from-pacs-to-segmentation.md"


def test_the_commands_of_the_page(heads: dict[str, Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy heads have no brain that a skull-stripper could find, so that one step is switched off."""
    lines = re.findall(r"^medmap .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {line.split()[1] for line in lines} == {"prepare", "predict"}
    monkeypatch.chdir(tmp_path)
    write_dicom_study(tmp_path / "export" / "patient A", {m: heads[m] for m in ("flair", "t2")})
    shutil.copytree(REPOSITORY / "bundles" / "brats_starter", tmp_path / "bundles" / "brats_starter")
    for line in dict.fromkeys(lines):
        command = shlex.split(line.split("  #")[0])[1:]
        if command[0] == "prepare" or "--prepare" in command:
            command += ["--skull-strip", "none"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, f"{line}\n{done.output}"
    assert list((tmp_path / "segmentations").glob("*_seg.nii.gz"))
    assert list((tmp_path / "out").glob("*_seg.nii.gz"))
