"""``medmap features`` on phantoms, as a user types it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from medmap_monai.cli.features import features
from medmap_monai.engines.encoder_features import load_features


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(features)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_features_of_complete_studies(
    make_bundle: Callable[..., Path], random_weights: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    studies = tmp_path / "studies"
    for number in (1, 2, 3):
        shutil.copytree(phantom_cohort / f"BraTS20_Training_{number:03d}", studies / f"BraTS20_Training_{number:03d}")
    (studies / "BraTS20_Training_002" / "BraTS20_Training_002_t1.nii.gz").unlink()
    bundle, output = make_bundle(weights=random_weights), tmp_path / "out" / "features.npz"
    options = ("--bundle", bundle, "--output", output, "--overlay", "phantom", "--positions", 10)
    result = run(studies, *options)
    assert result.exit_code == 0, result.output
    assert "2 studies" in result.output
    assert "linear CKA" in result.output
    found = load_features(output)
    assert found.modalities == ("flair", "t1ce", "t1", "t2")
    assert found.levels["level0"].shape == (4, 20, 8)
    assert set(found.case_ids["level0"].tolist()) == {"BraTS20_Training_001", "BraTS20_Training_003"}
    assert [p.name for p in output.parent.iterdir()] == ["features.npz"]


def test_errors_are_messages(make_bundle: Callable[..., Path], random_weights: Path, tmp_path: Path) -> None:
    bundle = make_bundle(weights=random_weights)
    result = run(tmp_path / "nothing", "--bundle", bundle, "--output", tmp_path / "f.npz", "--overlay", "phantom")
    assert result.exit_code == 1
    assert "nothing" in result.output
    assert not (tmp_path / "f.npz").exists()
