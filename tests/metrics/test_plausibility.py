"""Flags of implausible segmentations; what is plausible has none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medmap_monai.metrics.plausibility import LIMITS, plausibility_flags

SHAPE = (60, 64, 50)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def _ball(centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    """Voxels within ``radius`` mm of ``centre``, the share of the volume's extent along each axis."""
    axes = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    edges = np.diag(AFFINE)[:3]
    inside = sum(((a - c * n) * e) ** 2 for a, c, n, e in zip(axes, centre, SHAPE, edges, strict=True)) <= radius**2
    return np.asarray(inside, dtype=bool)


BRAIN = _ball((0.5, 0.5, 0.5), 55)  # 0.7 l
TUMOUR = _ball((0.35, 0.5, 0.5), 20)


def _noise() -> NDArray[np.bool_]:
    return BRAIN & (np.random.default_rng(0).random(SHAPE) < 0.02)


def _many_parts() -> NDArray[np.bool_]:
    grid = np.zeros(SHAPE, bool)
    for x in range(0, 60, 6):
        for y in range(0, 64, 6):
            grid[x : x + 3, y : y + 3, 20:23] = True
    return grid & BRAIN


@pytest.mark.parametrize(
    ("segmented", "text"),
    [
        (_ball((0.5, 0.5, 0.5), 54), "of what the images show is segmented"),
        (BRAIN & ~_ball((0.5, 0.5, 0.5), 53), "in the outermost 2 mm"),
        (_many_parts(), "separate parts"),
        (_noise(), "in parts below 0.05 ml"),
        (np.zeros(SHAPE, bool), "nothing is segmented"),
        (np.ones(SHAPE, bool), "of what the images show is segmented"),
    ],
)
def test_implausible_maps_are_flagged(segmented: NDArray[np.bool_], text: str) -> None:
    flags = plausibility_flags(segmented.astype(np.uint8)[None], BRAIN[None], AFFINE)
    assert any(text in flag for flag in flags), flags


@pytest.mark.parametrize(
    "segmented", [TUMOUR, TUMOUR | _ball((0.7, 0.5, 0.5), 10), _ball((0.2, 0.5, 0.5), 16) & BRAIN, _ball((0.5,) * 3, 4)]
)
def test_plausible_maps_are_not(segmented: NDArray[np.bool_]) -> None:
    assert plausibility_flags(segmented, BRAIN, AFFINE) == []


def test_holes_in_the_brain_are_no_surface() -> None:
    hollow = BRAIN & ~_ball((0.35, 0.5, 0.5), 18)
    rim = TUMOUR & hollow
    assert plausibility_flags(rim, hollow, AFFINE) == []


def test_every_limit_has_its_reason_and_shapes_must_agree() -> None:
    assert all(limit.reason for limit in LIMITS.values())
    with pytest.raises(ValueError, match="label map has shape"):
        plausibility_flags(np.zeros((2, 3, 4)), np.zeros((2, 3, 5)), AFFINE)
