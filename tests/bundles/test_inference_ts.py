"""Inference from ``models/model.ts`` alone gives the label maps of eager execution, in two and three dimensions."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medmap_monai.data.phantom import write_cohort
from medmap_monai.engines.training_checkpoint import load_model
from medmap_monai.utils.bundle_workflow import open_workflow
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.export import export_torchscript
from tests.zoo.conftest import BUNDLES, copy_bundle

#: the starter's own network, with its weights, on small windows
SMALL_WINDOWS = {"roi_size": [24, 24, 24], "study_shape": [32, 32, 32], "spacing": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("name", "edition", "shape"),
    [
        ("brats_unet_dropout", "brats2020", (40, 36, 33)),  # overlapping windows, and windows of background
        ("myops_passion_unet", "myops2020", (40, 40, 4)),  # slices of a volume
        ("brats_starter", "brats2020", (36, 32, 32)),  # the weights that come with the package
    ],
)
def test_label_maps_are_those_of_eager_execution(
    name: str, edition: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    bundle = copy_bundle(tmp_path, name)
    torch.manual_seed(0)
    shipped = BUNDLES / name / "models" / "model.pt"
    # in studies of so few voxels every finding is small, and maps without any would be equal whatever was computed
    shipping = {**SMALL_WINDOWS, "smallest_finding": 0.0}
    small, settings = ((), shipping) if shipped.is_file() else (("phantom",), {})
    network = BundleFolder(bundle).build_network([*small])
    (bundle / "models").mkdir(exist_ok=True)
    if shipped.is_file():
        load_model(network, shipped)
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    export_torchscript(network, bundle / "models" / "model.ts")
    studies = write_cohort(tmp_path / "studies", edition, 2, shape, absent={"2": ["t2"]})
    maps = {}
    for overlays in ((), ("inference_ts",)):
        output = tmp_path / f"out of {len(overlays)}"
        given = {"dataset_dir": str(studies), "output_dir": str(output), "device": "cpu", **settings}
        open_workflow(bundle, "inference", [*small, *overlays], given).run()
        maps[overlays] = {p.name: np.asarray(nib.load(p).dataobj) for p in output.glob("*_seg.nii.gz")}  # type: ignore[attr-defined]
        (bundle / "models" / "model.pt").unlink(missing_ok=True)
    eager, scripted = maps[()], maps[("inference_ts",)]
    assert len(eager) == 2
    assert eager.keys() == scripted.keys()
    for case, expected in eager.items():
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(scripted[case], expected)
