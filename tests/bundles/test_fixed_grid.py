"""A bundle that works at a fixed spacing and orientation gives, and scores, label maps on the study's own grid."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medmap_monai.data.studies import find_studies
from medmap_monai.utils.bundle_workflow import open_workflow

GRID: dict[str, Any] = {"orientation": "PIR", "spacing": [2.0, 2.0, 3.0], "roi_size": [32, 32, 32], "device": "cpu"}


@pytest.fixture
def study(phantom_cohort: Path, tmp_path: Path) -> Path:
    """One study on an anisotropic grid whose axes point right, front and foot."""
    source = find_studies(phantom_cohort)[0]
    folder = tmp_path / "study" / source.case_id
    folder.mkdir(parents=True)
    affine = np.array([[1.2, 0.0, 0.0, -20.0], [0.0, 1.0, 0.0, -15.0], [0.0, 0.0, -1.5, 25.0], [0, 0, 0, 1]])
    paths = [image.path for image in source.images.values()] + [source.label]
    for path in paths:
        data = np.asanyarray(nib.load(path).dataobj)
        nib.save(nib.Nifti1Image(data, affine), folder / Path(path).name)
    return folder


def dice(a: np.ndarray, b: np.ndarray) -> float:
    total = a.sum() + b.sum()
    return 100 * 2 * float((a & b).sum()) / float(total) if total else 100.0


def test_evaluation_scores_what_prediction_writes(
    study: Path, make_bundle: Callable[..., Path], random_weights: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(weights=random_weights)
    given = {"dataset_dir": str(study), **GRID}
    open_workflow(bundle, "inference", ["phantom"], {**given, "output_dir": str(tmp_path / "out")}).run()
    label = nib.load(study / f"{study.name}_seg.nii.gz")
    result = nib.load(tmp_path / "out" / f"{study.name}_seg.nii.gz")
    assert result.shape == label.shape
    assert np.array_equal(result.affine, label.affine)
    found, truth = np.asanyarray(result.dataobj), np.asanyarray(label.dataobj)
    assert len(np.unique(found)) > 1  # random weights, but not background alone

    output = tmp_path / "evaluation"
    open_workflow(
        bundle, "evaluate", ["phantom"], {**given, "output_dir": str(output), "subsets": ["flair+t1ce+t1+t2", "t1"]}
    ).run()
    with (output / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "dice" and row["subset"] == "flair+t1ce+t1+t2"]
    scores = {row["region"]: float(row["value"]) for row in rows}
    for region, values in {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}.items():
        expected = dice(np.isin(found, values), np.isin(truth, values))
        assert scores[region] in (pytest.approx(expected, abs=1e-4), pytest.approx(expected / 100, abs=1e-6)), region
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert summary["orientation"] == "PIR"
    assert summary["spacing"] == [2.0, 2.0, 3.0]


def test_training_and_its_validation_take_the_grid(
    study: Path, make_bundle: Callable[..., Path], phantom_cohort: Path
) -> None:
    bundle = make_bundle()
    given = {**GRID, "dataset_dir": str(phantom_cohort), "epochs": 1, "val_interval": 1, "batch_size": 2}
    folds = {"val_fraction": 0.25, "test_fraction": 0.25}
    training = open_workflow(bundle, "train", ["phantom"], given | folds, "train")
    sample = training.parser.get_parsed_content("validate#dataset")[0]
    assert sample["image"].shape[1:] == sample["label"].shape[1:] == (16, 16, 11)
    training.run()
    assert (bundle / "models" / "model.pt").is_file()
