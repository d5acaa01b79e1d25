"""One search for the place of a head by mutual information: images, starts, optimiser, and figures of a place."""

from __future__ import annotations

from itertools import product

import numpy as np
import SimpleITK as sitk

from medmap_monai.clinical.volume import Volume, to_itk

BINS = 48
GRID_MM = 2.0  # isotropic grid of the search: what 5 mm slices hold, at an eighth of the voxels of 1 mm
_ANGLES = (-20.0, -10.0, 0.0, 10.0, 20.0)  # degrees about each axis, where a search begins


def search_image(volume: Volume) -> sitk.Image:
    """The volume on an isotropic grid along its own axes, intensities cut at the 99.9th percentile.

    One bright vessel would otherwise take most of the histogram.
    """
    low, high = float(volume.data.min()), float(np.quantile(volume.data[::2, ::2], 0.999))
    high = high if high > low else float(volume.data.max())
    image = to_itk(Volume(np.clip(volume.data, low, high), volume.affine))
    sigma = [0.4 * GRID_MM if step < 0.75 * GRID_MM else 0.0 for step in image.GetSpacing()]
    for axis, width in enumerate(sigma):
        if width:
            image = sitk.RecursiveGaussian(image, width, direction=axis)
    extent = [n * step for n, step in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    size = [max(4, round(length / GRID_MM)) for length in extent]
    first = [0.5 * GRID_MM / step - 0.5 for step in image.GetSpacing()]
    origin = image.TransformContinuousIndexToPhysicalPoint(first)
    return sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, origin, [GRID_MM] * 3, image.GetDirection(), low
    )


def search_starts(fixed: sitk.Image, moving: sitk.Image) -> list[sitk.Euler3DTransform]:
    """Where the searches begin; the place that the headers give comes first."""
    middle = [(n - 1) / 2 for n in fixed.GetSize()]
    header = sitk.Euler3DTransform()
    header.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint(middle))
    kinds = (sitk.CenteredTransformInitializerFilter.GEOMETRY, sitk.CenteredTransformInitializerFilter.MOMENTS)
    centred = [sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), kind) for kind in kinds]
    geometry, moments = (sitk.Euler3DTransform(start) for start in centred)
    return [header, geometry, moments, _best_turned(fixed, moving, moments)]


def _best_turned(fixed: sitk.Image, moving: sitk.Image, start: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    """``start`` with the rotation on a grid of angles that matches best: round heads hold a search where it begins."""
    small, large = (sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, 4.0), [3, 3, 3]) for image in (fixed, moving))
    best, most = start, -1.0
    for angles in product(_ANGLES, repeat=3):
        turned = sitk.Euler3DTransform(start)
        turned.SetRotation(*np.radians(angles).tolist())
        information = mutual_information(small, large, turned)
        if information > most:
            best, most = turned, information
    return best


def search(
    fixed: sitk.Image,
    moving: sitk.Image,
    start: sitk.Euler3DTransform,
    seed: int,
    levels: tuple[tuple[int, float, float], ...],
    step: float,
) -> tuple[sitk.Euler3DTransform, float]:
    """One search; ``levels`` are (shrink factor, smoothing in mm, share of voxels sampled)."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([share for _, _, share in levels], seed + 1)  # 0 would mean the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step, 2e-3, 100, relaxationFactor=0.5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([shrink for shrink, _, _ in levels])
    method.SetSmoothingSigmasPerLevel([sigma for _, sigma, _ in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=False)
    found = method.Execute(fixed, moving)
    if found.GetName() == "CompositeTransform":
        found = sitk.CompositeTransform(found).GetNthTransform(0)
    return sitk.Euler3DTransform(found), float(method.GetMetricValue())


def head_points(fixed: sitk.Image) -> np.ndarray:
    """Corners of a box of 14 cm around the middle of the image: about where the brain's surface lies."""
    middle = np.asarray(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    return np.array([middle + 70 * np.array([x, y, z]) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])


def distance(one: sitk.Transform, other: sitk.Transform, points: np.ndarray) -> float:
    """Mean distance of the points' images under the two."""
    pairs = [(one.TransformPoint(p), other.TransformPoint(p)) for p in points.tolist()]
    return float(np.mean([np.linalg.norm(np.subtract(a, b)) for a, b in pairs]))


def neighbours(transform: sitk.Euler3DTransform, centre: np.ndarray) -> list[sitk.CompositeTransform]:
    """The result moved by 6 mm or turned by 6 degrees, along and about each axis, both ways."""
    moved = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            shift, turn = sitk.Euler3DTransform(), sitk.Euler3DTransform()
            offset, angle = [0.0] * 3, [0.0] * 3
            offset[axis], angle[axis] = 6.0 * sign, np.radians(6.0) * sign
            shift.SetTranslation(offset)
            turn.SetCenter(centre.tolist())
            turn.SetRotation(*angle)
            moved += [sitk.CompositeTransform([transform, shift]), sitk.CompositeTransform([transform, turn])]
    return moved


def mutual_information(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Mutual information (nats) over the whole field of view of ``fixed``, the air around the head included."""
    there = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0))
    here = sitk.GetArrayFromImage(fixed)
    counts, _, _ = np.histogram2d(here.ravel(), there.ravel(), bins=BINS)
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / apart[seen])).sum())


def head_overlap(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Share of the reference's head (Otsu) that lies in the field of view of ``moving``."""
    inside = sitk.Image(moving.GetSize(), sitk.sitkUInt8) + 1
    inside.CopyInformation(moving)
    covered = sitk.GetArrayFromImage(sitk.Resample(inside, fixed, transform, sitk.sitkNearestNeighbor, 0)) > 0
    head = sitk.GetArrayFromImage(sitk.OtsuThreshold(fixed, 0, 1)) > 0
    return float((head & covered).sum() / max(1, head.sum()))
