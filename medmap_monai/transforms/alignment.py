"""Whether two images of one patient lie on each other: a check before sequences of different grids are put together."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

_LEAST_OVERLAP = 0.7  # Dice of what the two show, where both were acquired; brains on each other have 0.9 and more
_WHOLE = 0.95  # share of the field of view; who shows something everywhere has no outline to compare
_FARTHEST_MM = 2.5  # most that a rigid search may move a point 50 mm from the centre; good registrations are below 2
_LEAST_GAIN = 0.05  # of mutual information; what gains less did not lie better elsewhere
_GRID_MM = 4.0  # the search works on a grid as coarse as this
_LEAST_VOXELS = 12  # per axis of that grid; less says nothing


def why_not_aligned(moving: np.ndarray, reference: np.ndarray, affine: np.ndarray, covered: np.ndarray) -> str | None:
    """Why two images on one grid do not show the same anatomy at the same place; None where nothing speaks against it.

    Compares where the two show something, and asks a small rigid search by mutual information (SimpleITK) whether
    ``moving`` would lie clearly better elsewhere.

    Args:
        moving: (X, Y, Z), resampled to the grid of ``reference``; zero is background.
        reference: (X, Y, Z).
        affine: (4, 4) voxel-to-world matrix in mm.
        covered: bool (X, Y, Z), where the field of view of ``moving`` lies.
    """
    shown, wanted = (moving != 0) & covered, (reference != 0) & covered
    total = int(shown.sum()) + int(wanted.sum())
    if not shown.any() or not wanted.any():
        return "they do not overlap at all"
    overlap = 2 * int((shown & wanted).sum()) / total
    with_background = max(int(shown.sum()), int(wanted.sum())) < _WHOLE * int(covered.sum())
    if with_background and overlap < _LEAST_OVERLAP:
        return f"what they show overlaps by {overlap:.0%} only (Dice)"
    edges = np.linalg.norm(np.asarray(affine, np.float64)[:3, :3], axis=0)
    if min(n * e / _GRID_MM for n, e in zip(reference.shape, edges, strict=True)) < _LEAST_VOXELS:
        return None
    moved, gain = _better_place(_image(moving * covered, edges), _image(reference * covered, edges))
    if moved > _FARTHEST_MM and gain > _LEAST_GAIN:
        return f"a rigid registration moves one by {moved:.0f} mm and finds {gain:.0%} more mutual information there"
    return None


def _image(volume: np.ndarray, edges: np.ndarray) -> sitk.Image:
    """The volume on a coarse grid, smoothed; world axes do not matter to a check of relative place."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.astype(np.float32).T))
    image.SetSpacing([float(edge) for edge in edges])
    factors = [max(1, round(_GRID_MM / float(edge))) for edge in edges]
    return sitk.BinShrink(image, factors)


def _better_place(moving: sitk.Image, reference: sitk.Image) -> tuple[float, float]:
    """How far (mm) the best rigid transform nearby moves a point 50 mm from the centre, and the relative gain."""
    registration = sitk.ImageRegistrationMethod()
    registration.SetMetricAsMattesMutualInformation(32)
    registration.SetMetricSamplingStrategy(registration.NONE)
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(4.0, 0.2, 60, relaxationFactor=0.6)
    registration.SetOptimizerScalesFromPhysicalShift()
    start = sitk.CenteredTransformInitializer(
        reference, reference, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    registration.SetInitialTransform(start, inPlace=False)
    before = registration.MetricEvaluate(reference, moving)  # negative: lower is better
    found = registration.Execute(reference, moving)
    after = registration.GetMetricValue()
    centre = np.asarray(start.GetFixedParameters()[:3])
    points = [centre + 50.0 * direction for direction in (*np.eye(3), *-np.eye(3))]
    moved = max(float(np.linalg.norm(np.asarray(found.TransformPoint(p.tolist())) - p)) for p in points)
    return moved, (before - after) / max(abs(before), 1e-6)
