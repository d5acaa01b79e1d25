"""Refuse images in which voxels of extreme value have wiped out everything else."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform

from medmap_monai.data.study import StudyError
from medmap_monai.modalities import Modalities

#: mean over largest magnitude of the voxels that are not zero: above 0.02 in real studies, and at most 2 over their
#: number where a single voxel decides about mean and standard deviation ("ours")
LEAST_MEAN = 1e-3


class RequireShownd(Transform):
    """Raise where nothing is left of a modality once the image is normalised: a quiet wrong answer otherwise.

    One voxel of 3e38 makes every other voxel of its modality the same number, which is finite.

    Args:
        modalities: names in channel order.
        image_key, mask_key, case_key: entries of the item: image (M, ...), ``present_mask`` (M,), case id.

    Raises:
        StudyError: a present modality holds NaN or Inf, nothing but zeros, or next to nothing but one value.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        image_key: Hashable = "image",
        mask_key: Hashable = "present_mask",
        case_key: Hashable = "case_id",
    ) -> None:
        self.modalities = modalities if isinstance(modalities, Modalities) else Modalities(tuple(modalities))
        self.image_key = image_key
        self.mask_key = mask_key
        self.case_key = case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = torch.as_tensor(data[self.image_key]).as_subclass(torch.Tensor)
        for name, channel, present in zip(self.modalities, image, data[self.mask_key], strict=True):
            if bool(present):
                problem = _problem(channel)
                if problem is not None:
                    raise StudyError(
                        str(data.get(self.case_key, "")), f"{name} {problem}; look for voxels of extreme value in it"
                    )
        return dict(data)


def _problem(channel: torch.Tensor) -> str | None:
    shown = channel[channel != 0].abs()
    if not shown.numel():
        return "is zero everywhere once normalised"
    highest = float(shown.max())
    if not np.isfinite(highest):
        return "holds NaN or Inf once normalised"
    if float(shown.mean()) < LEAST_MEAN * highest:
        return f"shows nothing once normalised: one voxel lies {highest:.3g} standard deviations from the mean"
    return None
