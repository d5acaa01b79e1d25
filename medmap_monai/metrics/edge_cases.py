"""What Dice and HD95 are when a region is empty, declared as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from monai.utils import look_up_option


class Empty(StrEnum):
    """Which of the two masks of a region are empty."""

    NONE = "none"
    BOTH = "both"
    PREDICTION = "prediction"
    REFERENCE = "reference"


class HausdorffEmpty(StrEnum):
    """HD95 when exactly one of the two masks is empty.

    ``diagonal``: the physical diagonal of the image grid in mm (373.13 mm for a BraTS volume): the worst distance
    that the grid allows. ``1.0``: the value of the published scripts; it rewards missing a structure over finding it
    badly and serves comparison with published tables only. ``nan``: the case is left out and counted.
    """

    DIAGONAL = "diagonal"
    ONE = "1.0"
    NAN = "nan"


@dataclass(frozen=True)
class EdgeCases:
    """The scores of empty regions.

    Args:
        hd95_empty: HD95 when exactly one mask is empty, see :class:`HausdorffEmpty`.
        hd95_both_empty: HD95 in mm when both masks are empty.
        dice_both_empty: Dice when both masks are empty.
        dice_one_empty: Dice when exactly one mask is empty.

    Raises:
        ValueError: when ``hd95_empty`` is not one of the listed options.
    """

    hd95_empty: str = HausdorffEmpty.DIAGONAL.value
    hd95_both_empty: float = 0.0
    dice_both_empty: float = 1.0
    dice_one_empty: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hd95_empty", look_up_option(str(self.hd95_empty), HausdorffEmpty).value)

    def dice(self, empty: Empty) -> float:
        """Dice of a region that is empty in one mask or both; ValueError when neither is."""
        if empty is Empty.NONE:
            raise ValueError("neither mask is empty: Dice is computed, not declared")
        return self.dice_both_empty if empty is Empty.BOTH else self.dice_one_empty

    def hd95(self, empty: Empty, diagonal: float) -> float:
        """HD95 in mm of a region that is empty in one mask or both, on a grid with this ``diagonal`` in mm.

        Raises:
            ValueError: neither mask is empty.
        """
        if empty is Empty.NONE:
            raise ValueError("neither mask is empty: HD95 is computed, not declared")
        if empty is Empty.BOTH:
            return self.hd95_both_empty
        if self.hd95_empty == HausdorffEmpty.DIAGONAL.value:
            return diagonal
        return 1.0 if self.hd95_empty == HausdorffEmpty.ONE.value else math.nan

    def as_dict(self) -> dict[str, str | float]:
        """The declaration as it is written into result files."""
        return asdict(self)


def grid_diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Physical diagonal in mm of an image grid of ``shape`` voxels and ``spacing`` mm per voxel."""
    if len(shape) != len(spacing):
        raise ValueError(f"shape {list(shape)} and spacing {list(spacing)} have different numbers of axes")
    return math.sqrt(sum((n * s) ** 2 for n, s in zip(shape, spacing, strict=True)))
