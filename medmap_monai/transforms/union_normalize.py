"""The published normalisation: every modality over the foreground of all modalities together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type


class UnionNormalize(Transform):
    """Z-score each modality with mean and population standard deviation over the union foreground.

    The statistics of a modality come from the voxels where *any* modality is not zero, and are applied to the whole
    volume, so background becomes a negative constant that differs between modalities. Absent modalities take no part
    and stay zero. The published script masks by "the sum over modalities is positive", which is the same for the
    non-negative intensities of BraTS. Pinned by the golden test ``norm``.

    The clinical protocol does not use it: there each modality is normalised over its own non-zero voxels
    (``monai.transforms.NormalizeIntensity(nonzero=True, channel_wise=True)``).

    Source: preprocessing of the published BraTS training scripts.
    """

    def __call__(self, image: torch.Tensor, present_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Image (M, ...) -> float32 image (M, ...); ``present_mask`` bool (M,), None: all present."""
        present = torch.ones(image.shape[0], dtype=torch.bool) if present_mask is None else present_mask
        source = torch.as_tensor(image).as_subclass(torch.Tensor).float()
        foreground = (source[present] != 0).any(dim=0)
        result = torch.zeros_like(source)
        for m in torch.nonzero(present).flatten().tolist():
            values = source[m][foreground]
            if values.numel() == 0:
                continue
            std = float(values.std(unbiased=False)) or 1.0
            result[m] = (source[m] - values.mean()) / std
        return convert_to_dst_type(result, image, dtype=torch.float32)[0]


class UnionNormalized(MapTransform):
    """Dictionary version of :class:`UnionNormalize`; reads ``present_mask``."""

    def __init__(
        self, keys: KeysCollection, present_key: Hashable = "present_mask", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalizer = UnionNormalize()
        self.present_key = present_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.normalizer(item[key], item.get(self.present_key))
        return item


UnionNormalizeD = UnionNormalizeDict = UnionNormalized
