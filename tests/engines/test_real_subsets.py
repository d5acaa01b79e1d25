"""A real study segmented from each of its 15 subsets; random weights, since only where something is found matters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmap_monai.engines.run_bundle import run_inference
from medmap_monai.modalities import BRATS
from tests.conftest import REPOSITORY

REAL = REPOSITORY / "../shared/real/TCGA-DU-7294"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real studies of ../shared/real are not here")
def test_nothing_is_found_where_every_input_is_zero(small_bundle: Callable[[Path], Path], tmp_path: Path) -> None:
    stored = {}
    (tmp_path / "files").mkdir()
    for name in BRATS:
        image = nib.load(REAL / f"TCGA-DU-7294_{name}.nii.gz")
        stored[name] = np.asarray(image.dataobj)[::3, ::3, ::3]  # every third voxel, for the time of the test
        half = nib.Nifti1Image(stored[name], image.affine @ np.diag([3, 3, 3, 1]))
        half.header["pixdim"][1:4] = 1  # the sform counts, for volumes too
        nib.save(half, tmp_path / "files" / f"{name}.nii.gz")
    subsets = {f"BraTS20_Training_{100 + number:03d}": names for number, names in enumerate(BRATS.subsets())}
    assert len(subsets) == 15
    for case, names in subsets.items():
        (tmp_path / "studies" / case).mkdir(parents=True)
        for name in names:
            (tmp_path / "studies" / case / f"{case}_{name}.nii.gz").symlink_to(tmp_path / "files" / f"{name}.nii.gz")
    voxel_ml = abs(float(np.linalg.det(half.affine))) / 1000
    assert voxel_ml == pytest.approx(0.027)
    coarse = {"spacing": [8.0, 8.0, 8.0]}
    run_inference(tmp_path / "studies", small_bundle(tmp_path), tmp_path / "out", device="cpu", settings=coarse)
    for case, names in subsets.items():
        found = np.asarray(nib.load(tmp_path / "out" / f"{case}_seg.nii.gz").dataobj) != 0
        shown = np.any([stored[name] != 0 for name in names], axis=0)
        assert found.any(), names
        assert not found[~shown].any(), names
        volumes = json.loads((tmp_path / "out" / f"{case}_seg.json").read_text())["volumes"]
        assert sum(volume["ml"] for volume in volumes.values()) == pytest.approx(found.sum() * voxel_ml, rel=1e-3)
