"""``medmap preprocess`` fills the store that training then uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.data.phantom import write_cohort
from medmap_monai.data.seeded_dataset import SeededCacheDataset
from medmap_monai.utils.bundle_workflow import open_workflow

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "brats_unet_dropout"


def test_training_finds_what_preprocess_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = write_cohort(tmp_path / "cohort", cases=5, shape=[20, 20, 20])
    arguments = ["preprocess", str(BUNDLE), "--data", str(cohort), "--store", str(tmp_path / "store")]
    arguments += ["--workers", "0", "--set", "roi_size=[16,16,16]"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "0 found" in result.output
    cases = len(list((tmp_path / "store").glob("*.json")))
    assert f"{cases} cases written" in result.output
    assert f"{cases} found" in CliRunner().invoke(app, arguments).output
    given = {"dataset_dir": str(cohort), "store_dir": str(tmp_path / "store"), "roi_size": [16] * 3}
    dataset = open_workflow(BUNDLE, "train", [], given, "train").parser.get_parsed_content("train#dataset")
    assert len(dataset) == cases
    monkeypatch.setattr(SeededCacheDataset, "_deterministic", lambda *_: pytest.fail("it is in the store"))
    assert dataset[0]["image"].shape == (4, 16, 16, 16)


def test_bad_cases_are_named(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort", cases=5, shape=[20, 20, 20])
    for path in cohort.rglob("*flair*"):
        path.write_bytes(path.read_bytes()[:60])
    arguments = ["preprocess", str(BUNDLE), "--data", str(cohort), "--store", str(tmp_path / "store"), "--workers", "0"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "0 cases written" in result.output
    assert "flair" in result.output
    off = CliRunner().invoke(app, [*arguments[:4], "--set", "store_dir=false"])
    assert off.exit_code == 1
    assert "has no store" in off.output
