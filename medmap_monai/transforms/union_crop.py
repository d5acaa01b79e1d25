"""The published crop: the box of all modalities' foreground, at least 128 voxels wide."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Crop, Cropd, Transform


def published_range(first: int, last: int, minimum: int = 128) -> tuple[int, int]:
    """Half-open range kept along one axis whose first and last foreground voxels are ``first`` and ``last``.

    Two quirks are kept for parity and pinned by the golden test ``crop``: the end is the *index* of the last
    foreground voxel, so that plane is lost; and a range shorter than ``minimum`` grows by e below and e + 1 above,
    e = (minimum - width) // 2, to ``minimum`` or ``minimum + 1``. A negative start shifts the range up. The end may
    lie beyond the volume.
    """
    start, end = first, last
    if end - start < minimum:
        extra = (minimum - (end - start)) // 2
        start, end = start - extra, end + extra + 1
    if start < 0:
        start, end = 0, end - start
    return start, end


def foreground_box(image: torch.Tensor) -> list[tuple[int, int]] | None:
    """(first, last) foreground voxel along each axis of ``image`` (M, ...); None where everything is zero."""
    foreground = (image != 0).any(dim=0)
    box = []
    for axis in range(foreground.ndim):
        others = [a for a in range(foreground.ndim) if a != axis]
        line = torch.nonzero(foreground.any(dim=others) if others else foreground).flatten()
        if line.numel() == 0:
            return None
        box.append((int(line[0]), int(line[-1])))
    return box


class UnionCrop(Transform):
    """Crop an image (M, ...) to the foreground box of its modalities by the published rule.

    Args:
        minimum: least width of the box per axis in voxels; a volume that is smaller stays as it is.
    """

    def __init__(self, minimum: int = 128) -> None:
        self.minimum = minimum
        self.cropper = Crop()

    def slices(self, image: torch.Tensor) -> tuple[slice, ...]:
        """The slices that are kept, within the volume; everything where the image is zero throughout."""
        sizes = image.shape[1:]
        box = foreground_box(torch.as_tensor(image).as_subclass(torch.Tensor))
        if box is None:
            return tuple(slice(0, n) for n in sizes)
        ranges = [published_range(first, last, self.minimum) for first, last in box]
        return tuple(slice(start, min(end, n)) for (start, end), n in zip(ranges, sizes, strict=True))

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return self.cropper(image, self.slices(image))


class UnionCropd(Cropd):
    """Dictionary version of :class:`UnionCrop`: the box of ``source_key`` cuts all ``keys``; invertible."""

    def __init__(
        self, keys: KeysCollection, source_key: Hashable = "image", minimum: int = 128, allow_missing_keys: bool = False
    ) -> None:
        self.union_crop = UnionCrop(minimum)
        super().__init__(keys, self.union_crop.cropper, allow_missing_keys)
        self.source_key = source_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, Any]:
        item: dict[Hashable, Any] = dict(data)
        slices = self.union_crop.slices(item[self.source_key])
        for key in self.key_iterator(item):
            item[key] = self.union_crop.cropper(item[key], slices)
        return item


UnionCropD = UnionCropDict = UnionCropd
