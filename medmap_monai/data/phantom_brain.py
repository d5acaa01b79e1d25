"""A synthetic brain with a glioma, in FLAIR, T1ce, T1 and T2.

Lengths are fractions of the half axis (coordinates -1 to 1) or of n, the shortest side in voxels, so that one recipe
serves every size. Each modality shows what it shows in patients: FLAIR the oedema, T1ce the enhancing rim, T1 both
faintly, T2 fluid and oedema alike. White matter lesions, vessels and enhancing spots look like tumour in one modality
each, so that combining modalities pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmap_monai.data.random_fields import Array, coordinates, distance, random_field, rician, sigmoid, smooth

TISSUES = ("CSF", "GM", "WM")
LESIONS = ("NCR", "ED", "ET")  # classes 1, 2, 3

# Mean intensity of CSF, GM, WM, NCR, ED, ET; then how far a lesion pulls the healthy intensity towards its mean.
_MEANS = {
    "flair": ((0.22, 0.62, 0.52, 0.50, 0.95, 0.82), (0.80, 0.90, 0.85)),
    "t1ce": ((0.25, 0.50, 0.68, 0.34, 0.52, 0.98), (0.90, 0.70, 0.90)),
    "t1": ((0.25, 0.50, 0.70, 0.36, 0.53, 0.47), (0.90, 0.75, 0.80)),
    "t2": ((0.95, 0.64, 0.50, 0.92, 0.80, 0.68), (0.85, 0.80, 0.80)),
}
_WHITE_MATTER_LESION = {"flair": 0.38, "t1ce": -0.06, "t1": -0.08, "t2": 0.25}
_NOISE = {"flair": 0.06, "t1ce": 0.055, "t1": 0.055, "t2": 0.06}
# Smallest regions in voxels of a 48^3 volume: smaller ones make Dice a lottery.
_SMALLEST = {"TC": 300, "ED": 400, "ET": 200, "NCR": 70}
_TRIES = 200


@dataclass(frozen=True)
class PhantomCase:
    """Images by modality (float32, arbitrary units) and the label map (class indices, uint8), all of one shape."""

    images: dict[str, Array]
    label: NDArray[np.uint8]


@dataclass(frozen=True)
class _Anatomy:
    axes: list[Array]
    depth: Array  # below the brain surface, in half axes; negative outside
    csf: Array
    gm: Array
    wm: Array


def brain_phantom(shape: Sequence[int], seed: int | Sequence[int], p_no_et: float = 0.0) -> PhantomCase:
    """One synthetic patient. The same arguments give the same bits.

    Args:
        shape: voxels per axis (left-right, front-back, bottom-top), each at least 16.
        seed: an integer, or several, such as (cohort seed, case number).
        p_no_et: chance that the tumour does not enhance (its ET is NCR then).

    Raises:
        ValueError: a shape that is not three axes of at least 16 voxels, or a chance outside 0..1.
    """
    if len(shape) != 3 or min(shape) < 16:
        raise ValueError(f"a brain phantom needs three axes of at least 16 voxels, got {tuple(shape)}")
    if not 0 <= p_no_et <= 1:
        raise ValueError(f"p_no_et must be from 0 to 1, got {p_no_et}")
    rng = np.random.default_rng(seed)
    n = min(shape)
    while True:
        anatomy = _anatomy(shape, n, rng)
        label = _tumour(anatomy, n, rng)
        if label is not None:
            break
    if rng.random() < p_no_et:
        label[label == 3] = 1
    spots = _white_matter_lesions(anatomy, label, rng)
    bright = _enhancing_distractors(anatomy, label, n, rng)
    blurred = [_partial_volume(label == index) for index in (1, 2, 3)]
    images = {name: _image(name, anatomy, blurred, spots, bright, n, rng) for name in _MEANS}
    return PhantomCase(images, label)


def _anatomy(shape: Sequence[int], n: int, rng: np.random.Generator) -> _Anatomy:
    voxel = 2 / n
    axes = coordinates(shape)
    radius = distance(axes, (0, 0, 0), rng.uniform(0.84, 0.95, 3))
    depth = 1 - radius / (1 + 0.05 * random_field(shape, n / 3, rng))
    gm = sigmoid((0.17 + 0.07 * random_field(shape, n / 7, rng) - depth) / voxel)
    csf = sigmoid((0.035 + 0.05 * random_field(shape, n / 8, rng) - depth) / (0.7 * voxel))
    bend = 0.25 * random_field(shape, n / 5, rng)
    size = np.array([0.07, 0.34, 0.13]) * rng.uniform(0.8, 1.35)
    for side in (-1, 1):
        nucleus = distance(axes, (0.32 * side, 0, 0), (0.12, 0.20, 0.15))
        gm = np.maximum(gm, sigmoid((1 - nucleus) * 0.15 / voxel))
        ventricle = distance(axes, (0.13 * side, 0, 0), size) + bend
        csf = np.maximum(csf, sigmoid((1 - ventricle) * float(size[0]) / (0.7 * voxel)))
    gm = gm * (1 - csf)
    return _Anatomy(axes, depth, csf, gm, 1 - csf - gm)


def _tumour(anatomy: _Anatomy, n: int, rng: np.random.Generator) -> NDArray[np.uint8] | None:
    """The label map, or None when no tumour of sufficient size fits this brain."""
    shape = anatomy.depth.shape
    for _ in range(_TRIES):
        centre = rng.uniform(-0.62, 0.62, 3)
        radius = rng.uniform(0.30, 0.50)
        stretch = rng.uniform(0.8, 1.25, 3)
        shift = rng.uniform(-0.25, 0.25, 3) * radius
        core = radius * rng.uniform(0.50, 0.82)
        necrosis = rng.uniform(0.45, 0.80)
        if not 0.15 < float(np.linalg.norm(centre)) < 0.68:
            continue
        cell = 0.45 * radius * n
        # oedema spreads in white matter and stops at fluid and cortex
        whole = distance(anatomy.axes, centre, radius * stretch) + 0.22 * random_field(shape, cell, rng)
        wt = (whole + 0.35 * anatomy.csf + 0.18 * anatomy.gm < 1) & (anatomy.depth > 0.02)
        inner = distance(anatomy.axes, centre + shift, core * stretch) + 0.22 * random_field(shape, cell, rng)
        tc = (inner < 1) & wt
        ncr = (inner + 0.16 * random_field(shape, cell, rng) < necrosis) & tc
        label = np.where(ncr, 1, np.where(tc, 3, np.where(wt, 2, 0))).astype(np.uint8)
        ncr_size, ed_size, et_size = np.bincount(label.ravel(), minlength=4)[1:]
        found = {"TC": ncr_size + et_size, "ED": ed_size, "ET": et_size, "NCR": ncr_size}
        if all(found[name] >= smallest * (n / 48) ** 3 for name, smallest in _SMALLEST.items()):
            return label
    return None


def _white_matter_lesions(anatomy: _Anatomy, label: NDArray[np.uint8], rng: np.random.Generator) -> Array:
    spots = np.zeros_like(anatomy.wm)
    for _ in range(rng.integers(1, 7)):
        blob = _blob(anatomy, (anatomy.wm > 0.5) & (anatomy.depth > 0), rng.uniform(0.05, 0.13), rng)
        spots = np.maximum(spots, blob * np.float32(rng.uniform(0.5, 1.0)))
    return spots * anatomy.wm * (label == 0)


def _enhancing_distractors(anatomy: _Anatomy, label: NDArray[np.uint8], n: int, rng: np.random.Generator) -> Array:
    """Vessels (where the zero sets of two fields cross, in some parts of the brain only) and enhancing spots."""
    shape = anatomy.depth.shape
    first, second = (random_field(shape, n / 5, rng) for _ in range(2))
    gate = sigmoid(4 * random_field(shape, n / 3, rng))
    bright = np.exp(-((first / 0.16) ** 2) - (second / 0.16) ** 2) * gate
    for _ in range(rng.integers(1, 4)):
        bright = np.maximum(bright, _blob(anatomy, anatomy.depth > 0, rng.uniform(0.04, 0.09), rng))
    return (bright * (label == 0)).astype(np.float32)


def _blob(anatomy: _Anatomy, where: NDArray[np.bool_], radius: float, rng: np.random.Generator) -> Array:
    """A soft ball around a random voxel of ``where``."""
    inside = np.flatnonzero(where)
    voxel = np.unravel_index(rng.choice(inside), where.shape)
    centre = [float(x.ravel()[i]) for x, i in zip(anatomy.axes, voxel, strict=True)]
    return np.exp(-(distance(anatomy.axes, centre, (radius,) * 3) ** 2))


def _partial_volume(region: NDArray[np.bool_]) -> Array:
    soft = region.astype(np.float32)
    for axis in range(soft.ndim):
        soft = smooth(soft, axis, 0.22)
    return soft


def _image(
    name: str,
    anatomy: _Anatomy,
    lesions: list[Array],
    spots: Array,
    bright: Array,
    n: int,
    rng: np.random.Generator,
) -> Array:
    """One modality: tissue, distractors, lesions, texture, bias field, noise, scanner scale; 0 outside the brain."""
    shape = anatomy.depth.shape
    means, pulls = _MEANS[name]
    mean = (np.array(means) + rng.normal(0, 0.03, 6)).astype(np.float32)
    visibility = float(np.exp(rng.normal(0, 0.22)))
    image = mean[0] * anatomy.csf + mean[1] * anatomy.gm + mean[2] * anatomy.wm
    image = image + _WHITE_MATTER_LESION[name] * spots
    patches = sigmoid(2 * random_field(shape, n / 8, rng))  # drawn for every modality: one stream for all
    if name == "t1ce":
        image = image + 0.9 * bright * (1 - image)
    healthy = image
    for lesion, region in enumerate(lesions):
        enhancing = name == "t1ce" and LESIONS[lesion] == "ET"
        pull = pulls[lesion] * (0.6 + 0.4 * patches) if enhancing else min(1.0, pulls[lesion] * visibility)
        image = image + region * pull * (mean[3 + lesion] - healthy)
    image = image + 0.07 * random_field(shape, n / 12, rng) * sum(lesions)
    image = image * np.exp(0.11 * random_field(shape, n / 2, rng))
    image = rician(image.astype(np.float32), _NOISE[name], rng) * np.float32(rng.uniform(300, 1500))
    return np.where(anatomy.depth > 0, image, 0).astype(np.float32)
