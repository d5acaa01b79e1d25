"""Smooth random fields and soft shapes, from which the phantoms are built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Vector: TypeAlias = Sequence[float] | NDArray[np.float64]


def random_field(shape: Sequence[int], cell: float | Sequence[float], rng: np.random.Generator) -> Array:
    """A smooth random field with mean 0 and standard deviation 1.

    White noise on a grid of nodes ``cell`` voxels apart (at least 4 nodes per axis and a margin of 3), smoothed once
    with [.25 .5 .25] per axis, upsampled linearly from a random sub-voxel offset.

    Args:
        shape: voxels per axis.
        cell: node spacing in voxels, one for all axes or one each.
        rng: source of the noise and of the offset.
    """
    cells = [float(cell)] * len(shape) if isinstance(cell, int | float) else [float(c) for c in cell]
    nodes = [max(4, math.ceil(n / c) + 1) + 3 for n, c in zip(shape, cells, strict=True)]
    values = rng.standard_normal(nodes, dtype=np.float32)
    for axis in range(len(nodes)):
        values = smooth(values, axis, 0.25)
    for axis, (n, c) in enumerate(zip(shape, cells, strict=True)):
        room = nodes[axis] - 1 - (n - 1) / c
        place = rng.uniform(0, room) + np.arange(n) / c
        low = np.minimum(place.astype(int), nodes[axis] - 2)
        weight = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(len(nodes))])
        values = values.take(low, axis) * (1 - weight) + values.take(low + 1, axis) * weight
    values -= values.mean()
    spread = values.std()
    return values / spread if spread > 0 else values


def smooth(values: Array, axis: int, side: float) -> Array:
    """Convolve one axis with [side, 1 - 2 side, side]; the border is repeated."""
    padded = np.pad(values, [(1, 1) if a == axis else (0, 0) for a in range(values.ndim)], mode="edge")
    n = values.shape[axis]
    before, after = (padded.take(range(start, start + n), axis) for start in (0, 2))
    return ((1 - 2 * side) * values + side * (before + after)).astype(np.float32)


def sigmoid(values: NDArray[np.floating]) -> Array:
    """Logistic function, safe for large values."""
    return (0.5 * (1 + np.tanh(0.5 * values))).astype(np.float32)


def coordinates(shape: Sequence[int]) -> list[Array]:
    """Voxel centres from -1 to 1, one broadcastable array per axis."""
    axes = []
    for axis, n in enumerate(shape):
        centres = ((2 * np.arange(n) + 1) / n - 1).astype(np.float32)
        axes.append(centres.reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    return axes


def distance(axes: Sequence[Array], centre: Vector, radii: Vector) -> Array:
    """Distance from ``centre`` with every axis divided by its radius: 1 on the ellipsoid."""
    squares = [((x - np.float32(c)) / np.float32(r)) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)]
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    return np.sqrt(total)


def rician(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Magnitude of the image with complex Gaussian noise: what an MR scanner gives."""
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.sqrt(real**2 + imaginary**2).astype(np.float32)
