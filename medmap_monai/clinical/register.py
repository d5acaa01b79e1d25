"""Rigid registration of two sequences of one head, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import SimpleITK as sitk

from medmap_monai.clinical.grid import field_problem
from medmap_monai.clinical.volume import Volume, rigid_to_matrix, to_itk

BINS = 48
GRID_MM = 2.0  # isotropic grid of the search: what 5 mm slices hold, at an eighth of the voxels of 1 mm
_ANGLES = (-20.0, -10.0, 0.0, 10.0, 20.0)  # degrees about each axis, where a search begins
#: Starts whose results lie within this (mm, over the head) found the same place; another one must confirm the best.
AGREEMENT_MM = 3.0
#: A head turned or moved by more than this between two sequences of one visit is no plausible result.
LARGEST_ROTATION = 50.0
LARGEST_SHIFT = 200.0
#: Share of the reference's head that the sequence must cover. A slab covers less, and is no input for a whole brain.
LEAST_OVERLAP = 0.5
#: Share of the mutual information that is lost when the result is moved by 6 mm or turned by 6 degrees. True matches
#: are sharp; images with nothing in common have no optimum worth the name. Measured: tests/clinical/test_register.py.
REFUSED_BELOW = 0.08
POOR_BELOW = 0.14


class RegistrationError(ValueError):
    """Two images could not be registered with confidence; the message says what speaks against the result."""


@dataclass(frozen=True)
class Registration:
    """Where a sequence lies.

    matrix: (4, 4), world of the reference -> world of the sequence, RAS+ mm.
    transform: the same for ITK and 3D Slicer (LPS+), fixed to moving.
    rotation: degrees. shift: mm, of the middle of the reference.
    information, information_before: mutual information (nats) in place, and with the places that the headers give.
    sharpness: share of it that is lost 6 mm or 6 degrees beside the result.
    agreement: mm between the best result and the nearest one of another start.
    overlap: share of the reference's head that the sequence covers.
    warnings: sentences for people.
    """

    matrix: np.ndarray
    transform: sitk.Euler3DTransform
    rotation: float
    shift: float
    information: float
    information_before: float
    sharpness: float
    agreement: float
    overlap: float
    warnings: tuple[str, ...] = ()

    def figures(self) -> dict[str, float]:
        """The numbers, for provenance and reports."""
        return {
            "rotation_degrees": round(self.rotation, 2),
            "shift_mm": round(self.shift, 2),
            "mutual_information": round(self.information, 4),
            "mutual_information_before": round(self.information_before, 4),
            "sharpness": round(self.sharpness, 3),
            "start_agreement_mm": round(self.agreement, 2),
            "overlap": round(self.overlap, 3),
        }


def register_rigid(reference: Volume, moving: Volume, seed: int = 0) -> Registration:
    """Find the place of ``moving`` in the world of ``reference`` by mutual information, coarse to fine (SimpleITK).

    The search starts four times (places of the headers, middles of the volumes, centres of mass, and the best of a grid
    of rotations about these) and refines the best. It is refused rather than guessed where the result has nothing to
    recommend it.

    Args:
        reference: the image that stays.
        moving: the image that is placed.
        seed: of the random samples.

    Raises:
        RegistrationError: the images have too little in common, hardly overlap, the movement is implausible, or an
            image is no head's by its size.
    """
    found = _found(reference, moving, seed)
    problem = _problem(found)
    if problem:
        raise RegistrationError(problem)
    return replace(found, warnings=tuple(_doubts(found)))


def _found(reference: Volume, moving: Volume, seed: int) -> Registration:
    for which, volume in (("the reference", reference), ("the image", moving)):
        problem = field_problem(volume)
        if problem:
            raise RegistrationError(f"{which}: {problem}")
    fixed, movable = _search_image(reference), _search_image(moving)
    starts = _starts(fixed, movable)
    coarse = []
    for start in starts:
        try:
            coarse.append(_search(fixed, movable, start, seed, levels=((4, 4.0, 1.0), (2, 2.0, 0.3)), step=4.0))
        except RuntimeError:
            continue  # this start leaves the images without overlap
    if not coarse:
        raise RegistrationError("the two images do not overlap anywhere")
    head = _head_points(fixed)
    coarse.sort(key=lambda result: result[1])
    best = coarse[0][0]
    agreement = min((_apart(best, other, head) for other, _ in coarse[1:]), default=float("inf"))
    transform, _ = _search(fixed, movable, best, seed, levels=((1, 0.0, 0.1),), step=0.5)
    centre = np.asarray(starts[0].GetCenter())
    cosine = (np.trace(np.asarray(transform.GetMatrix()).reshape(3, 3)) - 1) / 2
    information = _information(fixed, movable, transform)
    beside = float(np.mean([_information(fixed, movable, other) for other in _neighbours(transform, centre)]))
    return Registration(
        matrix=rigid_to_matrix(transform),
        transform=transform,
        rotation=float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        shift=float(np.linalg.norm(np.asarray(transform.TransformPoint(centre.tolist())) - centre)),
        information=information,
        information_before=_information(fixed, movable, starts[0]),
        sharpness=1 - beside / information if information > 0 else 0.0,
        agreement=agreement,
        overlap=_overlap(fixed, movable, transform),
    )


def _problem(found: Registration) -> str:
    if found.overlap < LEAST_OVERLAP:
        return f"it covers {found.overlap:.0%} of the reference's head, {LEAST_OVERLAP:.0%} are needed"
    if found.rotation > LARGEST_ROTATION or found.shift > LARGEST_SHIFT:
        return (
            f"the best match turns the head by {found.rotation:.0f} degrees and moves it by {found.shift:.0f} mm, "
            "which is implausible within one visit"
        )
    if found.sharpness < REFUSED_BELOW:
        return (
            f"it has too little in common with the reference (sharpness {found.sharpness:.2f} of the match, at least "
            f"{REFUSED_BELOW:g} is needed): another region, a turned or a damaged image?"
        )
    if found.agreement > 3 * AGREEMENT_MM:
        return f"searches from different starts end {found.agreement:.0f} mm apart: the match is a matter of luck"
    if found.information < found.information_before - 0.01:
        return (
            f"it matched better before ({found.information_before:.3f}) than after ({found.information:.3f}) the search"
        )
    return ""


def _doubts(found: Registration) -> list[str]:
    doubts = []
    if found.sharpness < POOR_BELOW:
        doubts.append(f"poor match (sharpness {found.sharpness:.2f}, usually above {POOR_BELOW:g}): look at it")
    if found.agreement > AGREEMENT_MM:
        doubts.append(f"two starts of the search ended {found.agreement:.1f} mm apart: look at it")
    if found.overlap < 0.9:
        doubts.append(f"covers only {found.overlap:.0%} of the head")
    return doubts


def _search_image(volume: Volume) -> sitk.Image:
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


def _starts(fixed: sitk.Image, moving: sitk.Image) -> list[sitk.Euler3DTransform]:
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
        information = _information(small, large, turned)
        if information > most:
            best, most = turned, information
    return best


def _search(
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


def _head_points(fixed: sitk.Image) -> np.ndarray:
    """Corners of a box of 14 cm around the middle of the image: about where the brain's surface lies."""
    middle = np.asarray(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    return np.array([middle + 70 * np.array([x, y, z]) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])


def _apart(one: sitk.Transform, other: sitk.Transform, points: np.ndarray) -> float:
    """Mean distance of the points' images under the two."""
    pairs = [(one.TransformPoint(p), other.TransformPoint(p)) for p in points.tolist()]
    return float(np.mean([np.linalg.norm(np.subtract(a, b)) for a, b in pairs]))


def _neighbours(transform: sitk.Euler3DTransform, centre: np.ndarray) -> list[sitk.CompositeTransform]:
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


def _information(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Mutual information (nats) over the whole field of view of ``fixed``, the air around the head included."""
    there = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0))
    here = sitk.GetArrayFromImage(fixed)
    counts, _, _ = np.histogram2d(here.ravel(), there.ravel(), bins=BINS)
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / apart[seen])).sum())


def _overlap(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Share of the reference's head (Otsu) that lies in the field of view of ``moving``."""
    inside = sitk.Image(moving.GetSize(), sitk.sitkUInt8) + 1
    inside.CopyInformation(moving)
    covered = sitk.GetArrayFromImage(sitk.Resample(inside, fixed, transform, sitk.sitkNearestNeighbor, 0)) > 0
    head = sitk.GetArrayFromImage(sitk.OtsuThreshold(fixed, 0, 1)) > 0
    return float((head & covered).sum() / max(1, head.sum()))
