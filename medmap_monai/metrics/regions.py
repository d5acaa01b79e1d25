"""Regions: named unions of classes that are scored, and their masks from a class map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Region:
    """A region that is scored.

    Args:
        name: as it stands in result files, for example ``WT``.
        classes: class indices whose union it is.
        minimum_voxels: a *prediction* with fewer voxels is emptied before scoring; 0 leaves it as it is. The
            reference is never changed.

    Raises:
        ValueError: for an empty name, no class, a class below 1 (0 is background), or a negative minimum.
    """

    name: str
    classes: tuple[int, ...]
    minimum_voxels: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(int(c) for c in self.classes))
        if not self.name:
            raise ValueError("a region needs a name")
        if not self.classes or min(self.classes) < 1:
            raise ValueError(
                f"region {self.name}: classes must be indices from 1 (0 is background), got {self.classes}"
            )
        if self.minimum_voxels < 0:
            raise ValueError(f"region {self.name}: minimum_voxels must not be negative, got {self.minimum_voxels}")


def make_regions(
    classes: Mapping[str, Sequence[int]], minimum_voxels: Mapping[str, int] | None = None, suffix: str = "pp"
) -> list[Region]:
    """Regions from ``name -> classes``, each post-processed variant beside its original, never instead of it.

    Args:
        classes: region name -> class indices, in the order of the tables.
        minimum_voxels: region name -> fewest voxels of a prediction that counts (published: ``{"ET": 500}``); each
            adds a region named with ``suffix``, such as ``ETpp``, right behind its original.
        suffix: appended to the name of a post-processed region.

    Raises:
        ValueError: when a name of ``minimum_voxels`` is not a region.
    """
    wanted = dict(minimum_voxels or {})
    unknown = sorted(set(wanted) - set(classes))
    if unknown:
        raise ValueError(f"minimum_voxels names unknown regions {unknown}; allowed are {list(classes)}")
    regions = []
    for name, members in classes.items():
        regions.append(Region(name, tuple(members)))
        if name in wanted:
            regions.append(Region(name + suffix, tuple(members), wanted[name]))
    return regions


def region_mask(class_map: Tensor, region: Region) -> Tensor:
    """Bool mask, shape of ``class_map`` (class indices), of the voxels that belong to ``region``."""
    mask = class_map == region.classes[0]
    for index in region.classes[1:]:
        mask = mask | (class_map == index)
    return mask


def predicted_mask(class_map: Tensor, region: Region) -> Tensor:
    """:func:`region_mask` of a prediction: all False where it has fewer than ``region.minimum_voxels`` voxels."""
    mask = region_mask(class_map, region)
    if region.minimum_voxels and int(mask.sum()) < region.minimum_voxels:
        return torch.zeros_like(mask)
    return mask
