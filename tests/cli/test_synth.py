"""``medmap synth``: cohorts that every other command accepts."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.data.studies import find_studies
from medmap_monai.synthesis.phantom_anatomy import ensure_phantom_anatomy
from medmap_monai.utils.synthetic import is_synthetic
from tests.test_how_to import PAGES, commands

run = CliRunner().invoke


def test_writes_a_cohort_that_is_read_as_one(tmp_path: Path) -> None:
    anatomy = ensure_phantom_anatomy(tmp_path / "anatomy")
    out = tmp_path / "cohort"
    arguments = ["synth", anatomy, "-o", str(out), "--cases", "2", "--spacing", "5", "--only", "last=flair+t2"]
    result = run(app, arguments)
    assert result.exit_code == 0, result.output
    assert is_synthetic(out)
    studies = find_studies(out)
    assert [sorted(study.images) for study in studies] == [["flair", "t1", "t1ce", "t2"], ["flair", "t2"]]
    image = nib.load(studies[0].images["flair"].path)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.allclose(image.header.get_zooms(), 5.0)
    labels = np.unique(np.asarray(nib.load(studies[0].label).dataobj))
    assert set(labels.tolist()) <= {0, 1, 2, 4}
    described = json.loads((out / "dataset.json").read_text())
    assert described["synthetic"] is True
    assert "no patient" in described["notice"]

    again = tmp_path / "again"
    run(app, ["synth", anatomy, "-o", str(again), "--cases", "1", "--spacing", "5"])
    first = np.asarray(nib.load(studies[0].images["flair"].path).dataobj)
    assert np.array_equal(first, np.asarray(nib.load(find_studies(again)[0].images["flair"].path).dataobj))


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    anatomy = ensure_phantom_anatomy(tmp_path / "anatomy")
    for extra, text in (
        (["--anatomies", "2-9"], "holds 3"),
        (["--edition", "myops2020"], "no brain tumour data set"),
        (["--spacing", "50"], "spacing"),
        (["--priors", "nowhere"], "nowhere"),
    ):
        result = run(app, ["synth", anatomy, "-o", str(tmp_path / "out"), "--cases", "1", *extra])
        assert result.exit_code == 1, extra
        assert text in result.output
        assert not (tmp_path / "out").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    result = run(app, ["synth", str(empty), "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "no brain label map" in result.output


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in anatomy, and the starter bundle without naming it."""
    pytest.importorskip("nilearn")
    assert (PAGES / "synthetic-studies.md").is_file()
    monkeypatch.chdir(tmp_path)
    for command in commands("synthetic-studies"):
        result = run(app, command.split()[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert "brats_starter" in result.output
    assert len(list((tmp_path / "predictions").glob("*_seg.nii.gz"))) == 2
