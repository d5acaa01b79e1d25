"""Every bundle trains with its phantom overlay and segments a study with absent files."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmap_monai.data.editions import get_edition
from medmap_monai.data.phantom import write_cohort
from medmap_monai.data.studies import find_studies
from medmap_monai.utils.bundle_workflow import open_workflow

BUNDLES = sorted(p.name for p in (Path(__file__).resolve().parents[2] / "bundles").iterdir() if p.is_dir())
# small enough for a test: the phantom overlay's networks, fewer cases, one epoch
SETTINGS = {
    "epochs": 1,
    "batch_size": 2,
    "val_fraction": 0.25,
    "test_fraction": 0.25,
    "device": "cpu",
    "val_interval": 1,
}


@pytest.fixture(scope="module")
def heart_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six synthetic MyoPS studies."""
    folder = tmp_path_factory.mktemp("hearts") / "cohort"
    write_cohort(folder, edition="myops2020", cases=6, shape=(64, 64, 4), seed=5)
    return folder


@pytest.mark.parametrize("name", BUNDLES)
def test_bundle_trains_and_segments(
    name: str, make_bundle: Callable[..., Path], phantom_cohort: Path, heart_cohort: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(name)
    cohort = heart_cohort if name.startswith("myops") else phantom_cohort
    training = open_workflow(bundle, "train", ["phantom"], {"dataset_dir": str(cohort), **SETTINGS}, "train")
    training.run()
    assert (bundle / "models" / "model.pt").is_file()
    with (bundle / "runs" / "training.csv").open(newline="") as file:
        values = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    assert all(np.isfinite(value) for value in values.values())
    assert "val_val_mean_dice" in values
    if "passion" in name or "dmaf" in name:
        assert (bundle / "runs" / "balance.csv").stat().st_size > 0

    study = find_studies(cohort)[0]
    kept = list(study.images)[:2]
    folder = tmp_path / "study" / study.case_id
    folder.mkdir(parents=True)
    for modality in kept:
        shutil.copy(study.images[modality].path, folder)
    overrides = {"dataset_dir": str(folder), "output_dir": str(tmp_path / "out"), "device": "cpu"}
    open_workflow(bundle, "inference", ["phantom"], overrides).run()
    result = nib.load(tmp_path / "out" / f"{study.case_id}_seg.nii.gz")
    assert result.shape == nib.load(study.images[kept[0]].path).shape
    known = {0, *get_edition(study.edition).labels}
    assert set(np.unique(np.asarray(result.dataobj)).tolist()) <= known
