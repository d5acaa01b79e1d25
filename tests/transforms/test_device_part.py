"""Augmentation on the training device gives the samples that the whole pipeline gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from medmap_monai.data.case_store import CaseStore
from medmap_monai.data.cohort import cohort_records
from medmap_monai.data.phantom import write_cohort
from medmap_monai.data.seeded_dataset import SeededCacheDataset
from medmap_monai.engines.trainer import ModalityTrainer
from medmap_monai.losses.segmentation import WeightedCEDiceLoss
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.modalities import BRATS
from medmap_monai.networks.unet import ModalityUNet
from medmap_monai.transforms.device_part import SEED, DevicePart
from medmap_monai.transforms.pipelines import train_transforms

SETTINGS: list[dict[str, Any]] = [
    {"mode": "pdt", "augment": "published"},
    {"mode": "idt_drop", "augment": "light", "missing": {"rates": 0.4}},
    {"mode": "idt", "augment": "published", "protocol": "legacy", "missing": {"rates": 0.4}},
    {"mode": "pdt", "augment": "none"},
    {"mode": "pdt", "augment": "published", "spatial_dims": 2},
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("part") / "cohort", cases=4, shape=[20, 22, 18])


def make(cohort: Path, device: str | None, cache_rate: float = 0.0, store: Path | None = None, **settings: Any) -> Any:
    dims = settings.get("spatial_dims", 3)
    pipeline = train_transforms(tuple(BRATS), roi_size=[16] * dims, **settings)
    part = None if device is None else DevicePart(pipeline, device, on=True)
    kept = CaseStore(store, pipeline)
    data = cohort_records(cohort)
    return SeededCacheDataset(data, pipeline, 3, cache_rate, copy_cache=False, store=kept, device_part=part)


def batches(dataset: Any, workers: int = 0, epochs: int = 2) -> list[dict[str, Any]]:
    found = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        for batch in DataLoader(dataset, batch_size=2, num_workers=workers):
            found.append(batch if dataset.device_part is None else dataset.device_part(batch))
    return found


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_same_samples(cohort: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    expected = batches(make(cohort, None, **settings))
    for options in ({}, {"cache_rate": 1.0}, {"store": tmp_path}):
        found = batches(make(cohort, "cpu", **options, **settings))
        for one, other in zip(found, expected, strict=True):
            assert set(one) == set(other)
            assert all(torch.equal(one[key], other[key]) for key in one if key != "case_id")


def test_workers_do_not_augment(cohort: Path) -> None:
    dataset = make(cohort, "cpu", **SETTINGS[0])
    whole = make(cohort, None, **SETTINGS[0])
    assert not torch.equal(dataset[0]["image"], whole[0]["image"])
    assert torch.equal(dataset[0]["modality_mask"], whole[0]["modality_mask"])
    for one, other in zip(batches(dataset, workers=2, epochs=1), batches(whole, epochs=1), strict=True):
        assert torch.equal(one["image"], other["image"])


def test_only_where_a_gpu_trains() -> None:
    pipeline = train_transforms(tuple(BRATS), roi_size=[16] * 3)
    assert not DevicePart(pipeline, "cpu")
    assert DevicePart(pipeline, "cuda:0")
    assert not DevicePart(pipeline, "cuda:0", on=False)
    assert not DevicePart(train_transforms(tuple(BRATS), augment="none"), "cuda:0")


def test_a_transform_that_cannot_is_an_error() -> None:
    with pytest.raises(ValueError, match="RandGaussianNoised cannot run on a device"):
        DevicePart(Compose([RandFlipd("image"), RandGaussianNoised("image")]), "cuda")


def test_the_trainer_augments_what_workers_left(cohort: Path) -> None:
    weights = []
    for device in (None, "cpu"):
        torch.manual_seed(0)
        method = ModalityDropoutBaseline(
            ModalityUNet(3, 4, 4, channels=(4, 8), deep_supervision=0), WeightedCEDiceLoss()
        )
        trainer = ModalityTrainer(
            device="cpu",
            max_epochs=2,
            train_data_loader=DataLoader(make(cohort, device, **SETTINGS[0]), batch_size=2),
            network=method,
            optimizer=torch.optim.SGD(method.parameters(), lr=0.1),
            seed=1,
        )
        trainer.run()
        assert SEED not in trainer.state.batch or device is not None
        weights.append([value.clone() for value in method.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_a_gpu_gives_the_samples_of_the_cpu(cohort: Path, settings: dict[str, Any]) -> None:
    expected = batches(make(cohort, None, **settings))
    for one, other in zip(batches(make(cohort, "cuda", **settings)), expected, strict=True):
        assert one["image"].is_cuda
        torch.testing.assert_close(one["image"].cpu(), other["image"], rtol=1e-6, atol=1e-6)
        assert torch.equal(one["label"].cpu(), other["label"])
