"""Bundles are found by path, and by the name of one that came with the package (tests/test_package.py: a wheel)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.utils import find_bundle as places
from medmap_monai.utils.find_bundle import DEFAULT_BUNDLE, default_bundle, find_bundle, known_bundles
from medmap_monai.zoo.bundle_table import RECIPE, SYNTHETIC, bundle_row
from tests.zoo.conftest import BUNDLES, copy_bundle


def test_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundle("brats_unet_dropout").resolve() == (BUNDLES / "brats_unet_dropout").resolve()
    own = copy_bundle(tmp_path)
    assert find_bundle(own) == own
    assert find_bundle("brats_unet_dropout") == Path("brats_unet_dropout")  # a folder of that path comes first
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no folder 'configs'"):
        find_bundle("empty")
    with pytest.raises(FileNotFoundError, match=r"by name are: .*brats_unet_dropout"):
        find_bundle("brats_unet")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_bundle("elsewhere/brats_unet_dropout")


def test_default_needs_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "bundle_places", lambda: [tmp_path])
    with pytest.raises(FileNotFoundError, match=r"no brats_starter with weights.*--bundle"):
        default_bundle()
    starter = copy_bundle(tmp_path).rename(tmp_path / DEFAULT_BUNDLE)
    with pytest.raises(FileNotFoundError, match="with weights"):
        default_bundle()
    (starter / "models" / "model.pt").write_bytes(b"weights")
    assert default_bundle() == starter
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "absent"), "--output", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "bundle brats_starter (none was given)" in result.output


def test_table_of_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = bundle_row("brats_unet_dropout")
    assert (row.weights, row.evidence, row.complete) == (False, RECIPE, {})
    assert row.modalities == ("flair", "t1ce", "t1", "t2")
    assert row.regions == ("WT", "TC", "ET")
    assert row.license == "Apache-2.0"
    assert bundle_row("myops_dmafnet").regions == ("LVB", "RVB", "MYO", "oedema", "scar")

    bundle = copy_bundle(tmp_path)
    (bundle / "models" / "model.pt").write_bytes(b"weights")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    metadata["data_source"] = "synthetic studies"
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    subsets = {"flair": 0.8, "t1ce": 0.6, "t1": 0.5, "t2": 0.7, "t2+t1+t1ce+flair": 0.9}
    content = {
        "format": 1,
        "minimum_dice": 0.5,
        "modalities": ["flair", "t1ce", "t1", "t2"],
        "data": "phantoms",
        "synthetic": True,
        "cases": 12,
        "subsets": {name: {"WT": {"mean": mean, "ci": None, "n": 12}} for name, mean in subsets.items()},
    }
    (bundle / "models" / "reliability.json").write_text(json.dumps(content), encoding="utf-8")
    row = bundle_row(bundle)
    assert row.evidence == SYNTHETIC
    assert (row.complete, row.worst) == ({"WT": 0.9}, {"WT": (0.5, "t1")})
    assert row.evaluated_on == "phantoms (synthetic), n = 12"

    monkeypatch.setenv("COLUMNS", "250")
    shown = CliRunner().invoke(app, ["info", "--bundles"]).output
    assert all(name in shown for name in known_bundles())
