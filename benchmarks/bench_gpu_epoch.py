"""A training run with its loader: what ``bench_gpu.py`` measures beside bare steps, on stored cases of noise."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_passion import build_method, build_network
from ignite.engine import Events
from monai.data import DataLoader
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandSpatialCropd

from medmap_monai.data.seeded_dataset import SeededCacheDataset
from medmap_monai.engines.trainer import ModalityTrainer
from medmap_monai.modalities import BRATS
from medmap_monai.transforms.device_part import DevicePart
from medmap_monai.transforms.intensity_jitter import RandIntensityJitterd
from medmap_monai.transforms.modality_dropout import RandModalityDropoutd
from medmap_monai.transforms.plane_rotation import RandPlaneRotationd

KEYS = ("image", "label")


def random_part(size: int) -> Compose:
    """What ``train_transforms(mode="pdt", augment="published")`` does to a stored case; reads no files."""
    typed = [EnsureTyped(KEYS, dtype=(torch.float32, torch.uint8), track_meta=False) for _ in range(2)]
    crop = RandSpatialCropd(KEYS, roi_size=[size] * 3, random_size=False)
    flips = [RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)]
    augment = [RandPlaneRotationd(KEYS), RandIntensityJitterd("image", per="slice"), *flips]
    return Compose([crop, typed[0], *augment, typed[1], RandModalityDropoutd(modalities=tuple(BRATS))])


class StoredNoise(SeededCacheDataset):
    """Cases of noise in memory-mapped files, as a store keeps the brain of a BraTS case."""

    def __init__(self, folder: Path, cases: int, repeats: int, shape: list[int], **kwargs: Any) -> None:
        generator = np.random.default_rng(0)
        for case in range(cases):
            np.save(folder / f"{case}.image.npy", generator.standard_normal((4, *shape), dtype=np.float32))
            np.save(folder / f"{case}.label.npy", generator.integers(0, 4, (1, *shape), dtype=np.uint8))
        self.folder, self.cases = folder, cases
        super().__init__([{"case_id": str(i)} for i in range(cases * repeats)], cache_rate=0.0, **kwargs)
        self.store = True  # type: ignore[assignment]  # the samples below are those of a store

    def stored(self, index: int) -> dict[str, Any]:
        found = [np.load(self.folder / f"{index % self.cases}.{key}.npy", mmap_mode="c") for key in ("image", "label")]
        image, label = map(torch.from_numpy, found)
        mask = torch.ones(4, dtype=torch.bool)
        return {"image": image, "label": label, "present_mask": mask, "modality_mask": mask.clone(), "case_id": "noise"}


def measure_epoch(spec: dict[str, Any], device: torch.device, size: int, shape: list[int]) -> dict[str, Any]:
    """Milliseconds per iteration of the last epoch: by then every pattern of masks is recorded.

    Args:
        spec: ``network``, ``precision``, ``workers``, ``steps`` (iterations of an epoch), ``epochs``,
            ``on_device`` (where augmentation runs).
        device: where to train.
        size: edge of a crop.
        shape: voxels of a stored case.
    """
    torch.manual_seed(0)
    method = build_method(build_network(spec["network"]), "passion", "auto").to(device)
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        pipeline = random_part(size)
        part = DevicePart(pipeline, device, on=spec["on_device"])
        repeats = -(-spec["steps"] // 4)
        data = StoredNoise(Path(folder), 4, repeats, shape, transform=pipeline, seed=0, device_part=part)
        loader = DataLoader(
            data,
            batch_size=1,
            num_workers=spec["workers"],
            persistent_workers=spec["workers"] > 0,
            pin_memory=device.type == "cuda",
        )
        trainer = ModalityTrainer(
            device=device,
            max_epochs=spec["epochs"],
            train_data_loader=loader,
            network=method,
            optimizer=torch.optim.AdamW(method.parameters(), lr=1e-4, amsgrad=True),
            max_grad_norm=5.0,
            seed=0,
            precision=spec["precision"] if device.type == "cuda" else "float32",
            non_blocking=True,
        )

        def mark() -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

        trainer.add_event_handler(Events.EPOCH_STARTED, mark)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=(spec["epochs"] - 1) * len(data) + 1), mark)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, mark)
        trainer.run()
    started, ended = marks[-2], marks[-1]  # from the end of the last epoch's first iteration: workers are at work
    recorded = 0 if trainer.captured is None else trainer.captured.recorded
    ms = 1000 * (ended - started) / (len(data) - 1)
    return {"epoch_ms": ms, "recorded_patterns": recorded, "cores": os.cpu_count()}
