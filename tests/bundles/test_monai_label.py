"""A bundle in MONAI Label: its own task classes, one image of a study handed over, two of four files there."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

CASES = "BraTS20_Training_001", "BraTS20_Training_002"
MADE_UP = ("phantom_cohort", "dataset_dir", "edition")  # of the overlay: where its own studies come from
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "monai-label.md"
PACKAGES = Path(os.environ.get("MEDMAP_MONAILABEL", Path(__file__).parents[2] / "build" / "monailabel"))


def small(bundle: Path, name: str) -> None:
    """Lay the phantom overlay over a configuration: MONAI Label reads one file, and the weights are small."""
    configs = bundle / "configs"
    content = json.loads((configs / f"{name}.json").read_text())
    for key, value in json.loads((configs / "phantom.json").read_text()).items():
        *parts, last = key.split("#")
        place = content
        for part in parts:
            place = place[part]
        if (last in place and key not in MADE_UP) or parts == ["network_def"]:
            place[last] = value
    (configs / f"{name}.json").write_text(json.dumps(content))


def run_task(work: Path, *words: str) -> str:
    """What the script with MONAI Label's classes prints."""
    if not (PACKAGES / "monailabel").is_dir():
        pytest.skip(f"MONAI Label is not in {PACKAGES}; .ci/install_monailabel puts it there")
    repository = Path(__file__).parents[2]
    script = Path(__file__).with_name("monai_label_task.py")
    done = subprocess.run(
        [sys.executable, str(script), *words],
        env={**os.environ, "PYTHONPATH": f"{repository}{os.pathsep}{PACKAGES}", "OMP_NUM_THREADS": "1"},
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_one_image_is_segmented_with_its_study(
    make_bundle: Callable[..., Path], random_weights: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(weights=random_weights)
    small(bundle, "inference")
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("flair", "t2"):
        shutil.copy(phantom_cohort / CASES[0] / f"{CASES[0]}_{name}.nii.gz", studies)
    before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    told = run_task(tmp_path, "infer", str(bundle), str(studies / f"{CASES[0]}_t2.nii.gz"))
    written = Path(next(line for line in told.splitlines() if line.startswith("RESULT")).split()[1])
    try:
        labels, image = nib.load(written), nib.load(studies / f"{CASES[0]}_flair.nii.gz")
        assert labels.shape == image.shape
        np.testing.assert_allclose(labels.affine, image.affine, atol=1e-5)
        assert set(np.unique(np.asarray(labels.dataobj))) <= {0, 1, 2, 3}
    finally:
        written.unlink()
    after = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    assert after == before, "the bundle's own saver wrote beside MONAI Label's"


def test_annotated_images_train_the_weights_that_are_there(
    make_bundle: Callable[..., Path], random_weights: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    """Two studies, one of them with two files; an epoch at a learning rate of zero keeps the weights it began with."""
    bundle = make_bundle(weights=random_weights)
    small(bundle, "train")
    configs = bundle / "configs" / "train.json"
    content = json.loads(configs.read_text())
    content.update(learning_rate=0.0, val_interval=1, batch_size=1)
    content["optimizer"]["weight_decay"] = 0.0
    configs.write_text(json.dumps(content))
    words = []
    for case, names in zip(CASES, (("flair", "t2"), ("flair", "t1ce", "t1", "t2")), strict=True):
        (tmp_path / case).mkdir()
        for name in (*names, "seg"):
            shutil.copy(phantom_cohort / case / f"{case}_{name}.nii.gz", tmp_path / case)
        words += [str(tmp_path / case / f"{case}_{name}.nii.gz") for name in ("t2", "seg")]
    run_task(tmp_path, "train", str(bundle), *words)
    (log,) = (bundle / "runs").glob("training.csv")
    figures = {name: float(value) for _, name, value in csv.reader(log.read_text().splitlines()[1:])}
    assert figures["loss"] > 0
    assert 0 <= figures["val_val_mean_dice"] <= 1
    before = torch.load(random_weights, weights_only=True)
    after = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert set(after) == set(before)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)


def test_the_page_names_a_bundle_that_there_is() -> None:
    """Its commands need a running server and 3D Slicer; what they name of this project is looked at."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("monailabel ")]
    assert [line.split()[1] for line in lines] == ["apps", "start_server"]
    name = lines[1].split("--conf models ")[1].split()[0]
    assert (PAGE.parents[2] / "bundles" / name / "configs" / "inference.json").is_file()
