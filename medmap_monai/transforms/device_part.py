"""The part of a training pipeline that runs on the device that trains: rotation, intensity, flips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.transforms import Compose, EnsureTyped, RandFlipd
from torch import Tensor

from medmap_monai.transforms.intensity_jitter import RandIntensityJitterd
from medmap_monai.transforms.modality_dropout import RandModalityDropoutd
from medmap_monai.transforms.plane_rotation import RandPlaneRotationd

SEED = "augmentation_seed"
_ON_DEVICE = (RandPlaneRotationd, RandIntensityJitterd, RandFlipd)
_KEYS = ("image", "label", "present_mask")


class DevicePart:
    """Split a pipeline: workers load, crop and draw masks, and the training process augments on its device.

    The transforms are those of the pipeline itself, and each item's random numbers depend on its seed alone, so a
    sample is the same wherever its parts run: bit for bit on a CPU; on a GPU up to the rounding of the intensity
    transform (one multiply-add). :class:`~medmap_monai.data.seeded_dataset.SeededCacheDataset` leaves this part out and
    adds the seed; :class:`~medmap_monai.engines.trainer.ModalityTrainer` finds it at its loader's data set.

    Args:
        pipeline: from :func:`~medmap_monai.transforms.pipelines.train_transforms`.
        device: where batches are trained on.
        on: True, False, or None: where ``device`` is a GPU.

    Raises:
        ValueError: behind the first transform that can run on a device stands one that cannot.
    """

    def __init__(self, pipeline: Compose, device: str | torch.device, on: bool | None = None) -> None:
        self.pipeline = pipeline
        self.device = torch.device(device)
        steps = list(pipeline.transforms)
        first = next((i for i, step in enumerate(steps) if isinstance(step, _ON_DEVICE)), len(steps))
        #: positions in the pipeline: what ends the workers' first part, what they do after it, what is done here
        self.first = first
        self.masks = [i for i in range(first, len(steps)) if isinstance(steps[i], RandModalityDropoutd)]
        self.steps = [i for i in range(first, len(steps)) if i not in self.masks]
        for i in self.steps:
            if not isinstance(steps[i], (*_ON_DEVICE, EnsureTyped)):
                raise ValueError(f"{type(steps[i]).__name__} cannot run on a device; build DevicePart(..., on=False)")
        wanted = self.device.type == "cuda" if on is None else on
        self.on = wanted and first < len(steps)

    def __bool__(self) -> bool:
        return self.on

    def without(self, item: Mapping[str, Any], start: int, seed: int) -> dict[str, Any]:
        """The workers' share of the pipeline from step ``start``, and the seed for the rest; already seeded."""
        data = self.pipeline(dict(item), start=start, end=self.first)
        for i in self.masks:
            data = self.pipeline.transforms[i](data)
        return {**data, SEED: seed}

    def __call__(self, batch: Mapping[str, Any], non_blocking: bool = False) -> dict[str, Any]:
        """A batch of :meth:`without` with image and label on the device and augmented."""
        result = {key: value for key, value in batch.items() if key != SEED}
        images: list[Tensor] = []
        labels: list[Tensor] = []
        image, label = (torch.as_tensor(batch[key]).to(self.device, non_blocking=non_blocking) for key in _KEYS[:2])
        for row, seed in enumerate(torch.as_tensor(batch[SEED]).tolist()):
            self.pipeline.set_random_state(seed=seed)
            item: Any = {"image": image[row], "label": label[row], "present_mask": batch["present_mask"][row]}
            for i in self.steps:
                item = self.pipeline.transforms[i](item)
            images.append(item["image"])
            labels.append(item["label"])
        return {**result, "image": torch.stack(images), "label": torch.stack(labels)}
