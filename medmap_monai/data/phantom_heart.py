"""A synthetic short-axis heart with a myocardial infarct, in bSSFP, LGE and T2 (own recipe).

A stack of thick slices from apex to base: left ventricle with papillary muscles, myocardium, right ventricle, chest
wall, lung and liver. The infarct is a scar that grows from the inner wall, within a larger oedema, in one coronary
territory. bSSFP shows the anatomy (bright blood) and nothing of the infarct, LGE the scar (nulled muscle, bright scar,
blood in between), T2 the oedema. In-plane lengths are fractions of half the shorter in-plane side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmap_monai.data.phantom_brain import PhantomCase
from medmap_monai.data.random_fields import Array, coordinates, distance, random_field, rician, sigmoid, smooth

# Mean intensity of lung, soft tissue, fat, LV blood, RV blood, muscle, oedema, scar.
_MEANS = {
    "bssfp": (0.12, 0.45, 0.85, 0.95, 0.90, 0.38, 0.42, 0.38),
    "lge": (0.10, 0.35, 0.70, 0.55, 0.52, 0.15, 0.24, 0.95),
    "t2": (0.08, 0.42, 0.70, 0.22, 0.26, 0.45, 0.85, 0.70),
}
_NOISE = {"bssfp": 0.05, "lge": 0.06, "t2": 0.07}
_SMALLEST = {4: 150, 5: 100}  # oedema and scar in voxels of a 48 x 48 x 10 volume
_TRIES = 200


@dataclass(frozen=True)
class _Heart:
    axes: list[Array]
    epicardium: Array  # signed: positive inside, in half axes
    endocardium: Array
    right: Array
    angle: Array  # around the left ventricle
    transmural: Array  # 0 at the inner, 1 at the outer wall


def heart_phantom(shape: Sequence[int], seed: int | Sequence[int], p_no_scar: float = 0.0) -> PhantomCase:
    """One synthetic patient. The same arguments give the same bits.

    Args:
        shape: voxels per axis (left-right, front-back, slices from apex to base); at least 24 x 24 x 3.
        seed: an integer, or several, such as (cohort seed, case number).
        p_no_scar: chance that the infarct is oedema only.

    Raises:
        ValueError: a shape that is too small, or a chance outside 0..1.
    """
    if len(shape) != 3 or min(shape[:2]) < 24 or shape[2] < 3:
        raise ValueError(f"a heart phantom needs at least 24 x 24 voxels and 3 slices, got {tuple(shape)}")
    if not 0 <= p_no_scar <= 1:
        raise ValueError(f"p_no_scar must be from 0 to 1, got {p_no_scar}")
    rng = np.random.default_rng(seed)
    n = min(shape[:2])
    while True:
        heart = _heart(shape, n, rng)
        label = _infarct(heart, n, rng)
        if label is not None:
            break
    if rng.random() < p_no_scar:
        label[label == 5] = 4
    lung, fat = _surroundings(heart, n, rng)
    papillary = _papillary_muscles(heart, label, n, rng)
    images = {name: _image(name, heart, label, lung, fat, papillary, n, rng) for name in _MEANS}
    return PhantomCase(images, label)


def _cell(n: int, in_plane: float) -> tuple[float, float, float]:
    """Field spacing: ``in_plane`` parts of n within a slice, and about three slices across."""
    return n / in_plane, n / in_plane, 3.0


def _heart(shape: Sequence[int], n: int, rng: np.random.Generator) -> _Heart:
    x, y, z = coordinates(shape)
    x, y = x * np.float32(shape[0] / n), y * np.float32(shape[1] / n)  # round, whatever the field of view
    height = (z + 1) / 2  # 0 apex, 1 base
    size = rng.uniform(0.42, 0.54)
    tilt = rng.uniform(-0.08, 0.08, 2)
    centre_x = np.float32(rng.uniform(0.02, 0.16)) + np.float32(tilt[0]) * z
    centre_y = np.float32(rng.uniform(-0.08, 0.08)) + np.float32(tilt[1]) * z
    dx, dy = x - centre_x, y - centre_y
    angle = np.arctan2(dy, dx) + 0 * z
    phases = rng.uniform(0, 2 * np.pi, 2)
    wobble = 1 + 0.04 * np.cos(2 * angle + phases[0]) + 0.025 * np.cos(3 * angle + phases[1])
    profile = np.sqrt(np.clip(1 - (1 - height) ** 2 * rng.uniform(0.70, 0.85), 0, 1))
    outer = size * profile * wobble
    wall = rng.uniform(0.13, 0.19) * (1 + 0.12 * np.cos(angle + rng.uniform(0, 2 * np.pi)))
    radius = np.sqrt(dx**2 + dy**2)
    ragged = 0.03 * random_field(shape, _cell(n, 8), rng)
    epicardium = (outer - radius + 0.5 * ragged).astype(np.float32)
    endocardium = (outer - wall - radius + ragged).astype(np.float32)
    transmural = (1 - (outer - radius) / wall).astype(np.float32)
    # the right ventricle lies against the septum, on the smaller x side, and ends before the apex
    ends = np.clip((height - rng.uniform(0.12, 0.25)) * 3, 0, 1)
    stretch = rng.uniform(0.95, 1.15)
    place = np.sqrt(
        ((dx + size * 0.72) / (size * 0.85 * stretch)) ** 2 + ((dy + 0.05 * size) / (size * 0.95 * stretch)) ** 2
    )
    right = ((ends * profile - place) * size * 0.9 + ragged).astype(np.float32)
    right = np.minimum(right, -epicardium - np.float32(0.01))
    return _Heart([x, y, z], epicardium, endocardium, right, angle.astype(np.float32), transmural)


def _infarct(heart: _Heart, n: int, rng: np.random.Generator) -> NDArray[np.uint8] | None:
    """The label map, or None when no infarct of sufficient size fits this heart."""
    shape = heart.epicardium.shape
    muscle = (heart.epicardium > 0) & (heart.endocardium <= 0)
    anatomy = np.where(muscle, 1, np.where(heart.endocardium > 0, 2, np.where(heart.right > 0, 3, 0)))
    scale = n * n * shape[2] / (48 * 48 * 10)
    for _ in range(_TRIES):
        direction = rng.uniform(-np.pi, np.pi)
        half_width = rng.uniform(0.45, 0.95)
        centre, extent = rng.uniform(-0.5, 0.5), rng.uniform(0.5, 1.0)
        depth = rng.uniform(0.45, 1.05)  # above 1: transmural
        growth = rng.uniform(1.3, 1.7)
        border = 0.18 * random_field(shape, _cell(n, 6), rng)
        apart = np.abs((heart.angle - direction + np.pi) % (2 * np.pi) - np.pi)
        place = np.sqrt((apart / half_width) ** 2 + ((heart.axes[2] - centre) / extent) ** 2)
        oedema = (place / growth + border < 1) & muscle
        scar = (place + border < 1) & (heart.transmural + border < depth) & oedema
        label = np.where(scar, 5, np.where(oedema, 4, anatomy)).astype(np.uint8)
        sizes = np.bincount(label.ravel(), minlength=6)
        if all(sizes[index] >= smallest * scale for index, smallest in _SMALLEST.items()) and sizes[1]:
            return label
    return None


def _surroundings(heart: _Heart, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Soft masks of lung (beside the heart, above the liver) and fat (chest wall and around the heart)."""
    shape = heart.epicardium.shape
    x, y, z = heart.axes
    bend = 0.08 * random_field(shape, _cell(n, 4), rng)
    chest = distance([x, y], (0.0, 0.0), (rng.uniform(0.95, 1.15), rng.uniform(0.85, 1.0)))
    liver = y - np.float32(rng.uniform(0.45, 0.65)) + np.float32(0.25) * z
    outside_heart = np.maximum(heart.epicardium, heart.right) < -0.06
    lung = sigmoid((1 - chest + bend) * n / 3) * sigmoid(-(liver + bend) * n / 3) * outside_heart
    rim = np.exp(-(((np.maximum(heart.epicardium, heart.right) + 0.05) / 0.04) ** 2))
    fat = np.maximum(sigmoid((chest + bend - 1) * n / 3), rim * (random_field(shape, _cell(n, 5), rng) > 0.2))
    return lung.astype(np.float32), (fat * (1 - lung)).astype(np.float32)


def _papillary_muscles(heart: _Heart, label: NDArray[np.uint8], n: int, rng: np.random.Generator) -> Array:
    """Two muscles inside the blood pool; as in the data set, their label is blood."""
    x, y, z = heart.axes
    muscles = np.zeros(label.shape, dtype=np.float32)
    pool = np.argwhere(label[..., label.shape[2] // 2] == 2)
    for _ in range(2):
        i, j = pool[rng.integers(len(pool))] if len(pool) else (0, 0)
        radius = rng.uniform(0.05, 0.08)
        place = distance([x, y, z], (float(x.ravel()[i]), float(y.ravel()[j]), 0.0), (radius, radius, 0.7))
        muscles = np.maximum(muscles, sigmoid((1 - place) * radius * n))
    return muscles * (label == 2)


def _image(
    name: str,
    heart: _Heart,
    label: NDArray[np.uint8],
    lung: Array,
    fat: Array,
    papillary: Array,
    n: int,
    rng: np.random.Generator,
) -> Array:
    """One sequence: tissue, partial volume, artefacts of the sequence, bias field, noise, scanner scale."""
    shape = label.shape
    mean = (np.array(_MEANS[name]) + rng.normal(0, 0.03, 8)).astype(np.float32)
    visibility = float(np.exp(rng.normal(0, 0.15)))
    image = mean[1] + lung * (mean[0] - mean[1]) + fat * (mean[2] - mean[1])
    for region, index in ((label == 2, 3), (label == 3, 4), ((label == 1) | (label > 3), 5)):
        image = np.where(region, mean[index], image)
    image = image + papillary * (mean[5] - image)
    image = image + 0.05 * random_field(shape, _cell(n, 10), rng) * (label != 0)
    for index, value in ((4, mean[6]), (5, mean[7])):
        image = np.where(label == index, image + min(1.1, visibility) * (value - image), image)
    slow_flow = np.exp(-(((heart.endocardium - 0.03) / 0.025) ** 2)) * (label == 2)
    patches = sigmoid(2 * random_field(shape, _cell(n, 8), rng))
    if name == "t2":  # slow blood along the inner wall looks like oedema
        image = image + 0.45 * slow_flow * patches
    image = smooth(smooth(image.astype(np.float32), 0, 0.18), 1, 0.18)
    slices = np.exp(rng.normal(0, 0.05, shape[2])).astype(np.float32)  # slices are taken in different breath-holds
    image = image * slices * np.exp(0.13 * random_field(shape, (n / 2, n / 2, 4.0), rng))
    return rician(image.astype(np.float32), _NOISE[name], rng) * np.float32(rng.uniform(200, 900))
