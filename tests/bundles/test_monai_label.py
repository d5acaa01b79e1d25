"""A bundle in MONAI Label: its own task class, one image handed over, two of four files there."""

from __future__ import annotations

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

CASE = "BraTS20_Training_001"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "monai-label.md"
PACKAGES = Path(os.environ.get("MEDMAP_MONAILABEL", Path(__file__).parents[2] / "build" / "monailabel"))


def test_one_image_is_segmented_with_its_study(
    make_bundle: Callable[..., Path], random_weights: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    if not (PACKAGES / "monailabel").is_dir():
        pytest.skip(f"MONAI Label is not in {PACKAGES}; .ci/install_monailabel puts it there")
    bundle = make_bundle(weights=random_weights)
    configs = bundle / "configs"
    content = json.loads((configs / "inference.json").read_text())
    for key, value in json.loads((configs / "phantom.json").read_text()).items():  # the small network of the weights
        part, _, name = key.partition("#")
        if name and part in content:
            content[part][name] = value
        elif key in content:
            content[key] = value
    (configs / "inference.json").write_text(json.dumps(content))
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("flair", "t2"):
        shutil.copy(phantom_cohort / CASE / f"{CASE}_{name}.nii.gz", studies)
    before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    repository = Path(__file__).parents[2]
    script = Path(__file__).with_name("monai_label_infer.py")
    done = subprocess.run(
        [sys.executable, str(script), str(bundle), str(studies / f"{CASE}_t2.nii.gz")],
        env={**os.environ, "PYTHONPATH": f"{repository}{os.pathsep}{PACKAGES}", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    written = Path(next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()[1])
    try:
        labels, image = nib.load(written), nib.load(studies / f"{CASE}_flair.nii.gz")
        assert labels.shape == image.shape
        np.testing.assert_allclose(labels.affine, image.affine, atol=1e-5)
        assert set(np.unique(np.asarray(labels.dataobj))) <= {0, 1, 2, 3}
    finally:
        written.unlink()
    after = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    assert after == before, "the bundle's own saver wrote beside MONAI Label's"


def test_the_page_names_a_bundle_that_there_is() -> None:
    """Its commands need a running server and 3D Slicer; what they name of this project is looked at."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("monailabel ")]
    assert [line.split()[1] for line in lines] == ["apps", "start_server"]
    name = lines[1].split("--conf models ")[1].split()[0]
    assert (PAGE.parents[2] / "bundles" / name / "configs" / "inference.json").is_file()
