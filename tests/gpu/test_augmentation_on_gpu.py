"""Augmentation on a GPU gives the samples of the CPU, up to the rounding of one multiply-add."""

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, RandFlipd

from medmap_monai.data.seeded_dataset import SeededCacheDataset
from medmap_monai.transforms.device_part import DevicePart

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def test_the_same_samples() -> None:
    pytest.importorskip("scipy")
    from medmap_monai.transforms.intensity_jitter import RandIntensityJitterd
    from medmap_monai.transforms.plane_rotation import RandPlaneRotationd

    keys, mask = ("image", "label"), torch.tensor([True, True, False])
    items = [
        {
            "image": torch.randn(3, 16, 18, 20) * mask.reshape(3, 1, 1, 1),
            "label": torch.randint(0, 4, (1, 16, 18, 20), dtype=torch.uint8),
            "present_mask": mask,
            "modality_mask": mask,
        }
        for _ in range(4)
    ]
    found = []
    for device in ("cpu", "cuda"):
        flips = [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)]
        pipeline = Compose([RandPlaneRotationd(keys), RandIntensityJitterd("image", per="slice"), *flips])
        part = DevicePart(pipeline, device, on=True)
        dataset = SeededCacheDataset(items, pipeline, seed=1, cache_rate=0.0, device_part=part)
        found.append([part(batch) for batch in DataLoader(dataset, batch_size=2)])
    for one, other in zip(*found, strict=True):
        assert other["image"].is_cuda
        torch.testing.assert_close(
            torch.as_tensor(other["image"]).cpu(), torch.as_tensor(one["image"]), rtol=1e-6, atol=1e-6
        )
        assert torch.equal(torch.as_tensor(other["label"]).cpu(), torch.as_tensor(one["label"]))
