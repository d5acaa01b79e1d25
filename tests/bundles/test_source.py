"""The bundles of the repository are what their sources say; `medmap bundle build` and `new` make such folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.zoo.build import build_bundle, bundle_files, differences
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.check import Status, check_bundle
from medmap_monai.zoo.source import PARTS, BundleSource, known_parts
from tests.zoo.conftest import BUNDLES

SOURCES = sorted(BUNDLES.glob("*.json"))
runner = CliRunner()


def read(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_folder_has_a_source() -> None:
    assert {p.stem for p in SOURCES} == {p.name for p in BUNDLES.iterdir() if p.is_dir()}
    assert len(SOURCES) >= 15


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_folder_is_as_its_source_says(source: Path) -> None:
    assert differences(source) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_sources_are_short(source: Path) -> None:
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 30


def test_hand_written_lines() -> None:
    """15 bundles were 8,144 lines of JSON that people edited."""
    written = [*SOURCES, *PARTS.rglob("*.json"), PARTS / "common" / "README.md"]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in written) <= 1500


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_every_configuration_defines_the_same_network(source: Path) -> None:
    networks = [read(source.with_suffix(""), name)["network_def"] for name in ("train", "inference", "evaluate")]
    assert networks[0] == networks[1] == networks[2]


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_every_value_that_can_be_overridden_does_something(source: Path) -> None:
    """A value that nothing reads takes an override without a word."""
    for stage in ("train", "inference", "evaluate"):
        config = read(source.with_suffix(""), stage)
        entries = {"imports", "initialize", "training", "inference", "evaluate"}  # what MONAI runs
        required = {"dataset_dir"} if "anatomy_dir" in config else set()  # MONAI wants the key; the data are made
        text = json.dumps(config)
        idle = {key for key in config if not re.search(rf"[@%]{key}\b", text)}
        assert idle - entries - required == set(), stage


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_documents_name_the_commands(source: Path) -> None:
    text = (source.with_suffix("") / "docs" / "README.md").read_text(encoding="utf-8")
    for part in ("configs/train.json", "configs/inference.json", "configs/evaluate.json", "torchrun", "Limits"):
        assert part in text
    assert "$" not in text
    assert max(len(line) for line in text.split("```")[0].splitlines()) <= 120


def test_building_changes_what_differs_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "mine.json"
    source.write_text((BUNDLES / "brats_unet_dropout.json").read_text(encoding="utf-8"), encoding="utf-8")
    assert len(build_bundle(source)) == len(bundle_files(BundleSource(source)))
    assert build_bundle(source) == []
    weights = tmp_path / "mine" / "models" / "model.pt"
    weights.write_bytes(b"weights")
    changed = tmp_path / "mine" / "configs" / "train.json"
    good = changed.read_bytes()
    changed.write_text("{}")
    assert runner.invoke(app, ["bundle", "build", "--check", str(tmp_path)]).exit_code == 1
    assert build_bundle(source) == [changed]
    assert (changed.read_bytes(), weights.read_bytes()) == (good, b"weights")
    (tmp_path / "mine" / "configs" / "own.json").write_text("{}")
    assert differences(source) == [f"{changed.with_name('own.json')} is not generated from {source}"]


def test_new_bundle_of_two_modalities_passes_the_checks(tmp_path: Path) -> None:
    command = ["bundle", "new", "lung", "--modalities", "ct,pet", "--classes", "tumour", "--folder", str(tmp_path)]
    result = runner.invoke(app, [*command, "--network", "rfnet", "--method", "dropout,medmap"])
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "lung.json").read_text(encoding="utf-8").splitlines()) <= 30
    checks = list(check_bundle(tmp_path / "lung", skip=["onnx", "torchscript"]))
    assert [str(r) for r in checks if r.status is Status.FAIL] == []
    metadata = BundleFolder(tmp_path / "lung").metadata
    assert metadata["network_data_format"]["inputs"]["image"]["channel_def"] == {"0": "ct", "1": "pet"}
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == 2
    assert runner.invoke(app, command).exit_code == 1  # exists already


def test_new_bundle_on_slices(tmp_path: Path) -> None:
    command = ["bundle", "new", "hearts", "--modalities", "lge,t2", "--classes", "scar", "--folder", str(tmp_path)]
    assert runner.invoke(app, [*command, "--slices"]).exit_code == 0
    train = read(tmp_path / "hearts", "train")
    assert train["network_def"]["spatial_dims"] == 2
    assert train["train"]["dataset"]["_target_"].endswith("SliceDataset")
    assert train["roi_size"] == [256, 256]


def test_a_bundle_may_have_a_training_set_of_its_own(tmp_path: Path) -> None:
    """Such as synthetic studies that are made on the fly."""
    source = tmp_path / "made.json"
    own = json.loads((BUNDLES / "brats_unet_dropout.json").read_text(encoding="utf-8"))
    dataset = {"_target_": "medmap_monai.data.seeded_dataset.SeededCacheDataset", "data": [], "transform": None}
    grid = {"orientation": "RAS", "spacing": [2, 2, 2]}
    own["configs"] = {"train": {"before loss": {"anatomies": None}, "train#dataset": dataset}, "all": grid}
    source.write_text(json.dumps(own), encoding="utf-8")
    build_bundle(source)
    train = read(tmp_path / "made", "train")
    assert train["train"]["dataset"] == dataset
    assert list(train).index("anatomies") + 1 == list(train).index("loss")
    for name in ("train", "inference", "evaluate"):
        config = read(tmp_path / "made", name)
        assert (config["orientation"], config["spacing"]) == ("RAS", [2, 2, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "resnet"}, "no network 'resnet'; there are .*rfnet"),
        ({"method": "passion"}, "method passion works with the loss weighted_ce_dice, not dice_ce"),
        ({"method": ["medmap", "dropout"]}, "medmap builds upon another method: name that first, as in dropout,medmap"),
        ({"method": ["dropout", "domain_adaptation"]}, "domain_adaptation would take the place of dropout"),
        ({"method": "medmap"}, "medmap builds upon another method"),
        ({"metod": "passion"}, r"unknown keys \['metod'\]"),
        ({"configs": {"train": {"train#optimiser#lr": 1}}}, "no 'optimiser' on the way"),
        ({"configs": {"train": {"before losses": {"x": 1}}}}, "nothing can be put before 'losses'"),
    ],
)
def test_faults_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = tmp_path / "mine.json"
    own = json.loads((BUNDLES / "brats_unet_dropout.json").read_text(encoding="utf-8"))
    source.write_text(json.dumps(own | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        build_bundle(source)
    assert not (tmp_path / "mine").exists()


def test_every_part_is_used() -> None:
    used: set[tuple[str, str]] = set()
    for source in SOURCES:
        own = json.loads(source.read_text(encoding="utf-8"))
        for kind in ("task", "network", "loss", "method"):
            names = own[kind] if isinstance(own[kind], list) else [own[kind]]
            used |= {(kind, name) for name in names if isinstance(name, str)}
    assert used == {(kind, name) for kind in ("task", "network", "loss", "method") for name in known_parts(kind)}


def test_every_setting_says_what_it_rests_on() -> None:
    """Each loss, network and method has its sentence, unless the bundle speaks for all of them."""
    for source in sorted(BUNDLES.glob("*.json")):
        made = BundleSource(source)
        page = (BUNDLES / source.stem / "docs" / "README.md").read_text(encoding="utf-8")
        section = " ".join(page.split("## What the settings rest on\n")[1].split("\n\n")[0].split())
        own = made.own.get("readme", {}).get("evidence")
        said = [own] if own else made.texts("readme", "evidence")
        assert len(said) >= (1 if own else 4), source.stem
        assert all(" ".join(text.split()) in section for text in said), source.stem
        assert ("PASSION's published code. Preprocessing" in section) == (own is None)
