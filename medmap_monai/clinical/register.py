"""Rigid registration of two sequences of one head, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from medmap_monai.clinical.volume import Volume, rigid_to_matrix, to_itk

BINS = 48
#: Two starts that end further apart than this (mm, over the head) make the result a matter of luck.
AGREEMENT_MM = 3.0
#: A head turned or moved by more than this between two sequences of one visit is no plausible result.
LARGEST_ROTATION = 50.0
LARGEST_SHIFT = 150.0
#: Share of the reference's head that the sequence must cover. A slab covers less, and is no input for a whole brain.
LEAST_OVERLAP = 0.5
#: Normalised mutual information (1: nothing in common, 2: the same image) below which images have nothing in common,
#: and below which the result deserves a look. Measured on pairs of one patient, of two patients and on damaged ones
#: (tests/clinical/test_register.py).
REFUSED_BELOW = 1.06
POOR_BELOW = 1.10


class RegistrationError(ValueError):
    """Two images could not be registered with confidence; the message says what speaks against the result."""


@dataclass(frozen=True)
class Registration:
    """Where a sequence lies.

    matrix: (4, 4), world of the reference -> world of the sequence, RAS+ mm.
    transform: the same for ITK and 3D Slicer (LPS+), fixed to moving.
    rotation: degrees. shift: mm, of the middle of the reference.
    similarity: normalised mutual information of the two in place (1 to 2).
    similarity_before: the same with the places that the headers give.
    agreement: mm between the results of two independent starts.
    overlap: share of the reference's head that the sequence covers.
    warnings: sentences for people.
    """

    matrix: np.ndarray
    transform: sitk.Euler3DTransform
    rotation: float
    shift: float
    similarity: float
    similarity_before: float
    agreement: float
    overlap: float
    warnings: tuple[str, ...] = ()

    def figures(self) -> dict[str, float]:
        """The numbers, for provenance and reports."""
        return {
            "rotation_degrees": round(self.rotation, 2),
            "shift_mm": round(self.shift, 2),
            "similarity": round(self.similarity, 4),
            "similarity_before": round(self.similarity_before, 4),
            "start_agreement_mm": round(self.agreement, 2),
            "overlap": round(self.overlap, 3),
        }


def register_rigid(reference: Volume, moving: Volume, seed: int = 0) -> Registration:
    """Find the place of ``moving`` in the world of ``reference`` by mutual information, coarse to fine (SimpleITK).

    The search starts twice, from the places that the headers give and from the centres of mass, and refines the better
    of the two. It is refused rather than guessed where the result has nothing to recommend it.

    Args:
        reference: the image that stays.
        moving: the image that is placed.
        seed: of the random samples.

    Raises:
        RegistrationError: the images have too little in common, hardly overlap, or the movement is implausible.
    """
    fixed, movable = to_itk(_scaled(reference)), to_itk(_scaled(moving))
    centre = (np.diag([-1.0, -1.0, 1.0]) @ reference.centre).tolist()
    coarse = []
    for start in _starts(fixed, movable, centre):
        try:
            coarse.append(_search(fixed, movable, start, seed, levels=((4, 4.0, 1.0), (2, 2.0, 0.5)), step=4.0))
        except RuntimeError:
            continue  # this start leaves the images without overlap
    if not coarse:
        raise RegistrationError("the two images do not overlap anywhere")
    head = _head_points(fixed)
    agreement = float(max(_apart(coarse[0][0], other, head) for other, _ in coarse))
    best = min(coarse, key=lambda found: found[1])[0]
    transform, _ = _search(fixed, movable, best, seed, levels=((2, 1.0, 0.2), (1, 0.0, 0.1)), step=1.0)
    identity = sitk.Euler3DTransform()
    identity.SetCenter(centre)
    cosine = (np.trace(np.asarray(transform.GetMatrix()).reshape(3, 3)) - 1) / 2
    moved = np.asarray(transform.TransformPoint(centre)) - centre
    similarity, overlap = _similarity(fixed, movable, transform)
    result = Registration(
        matrix=rigid_to_matrix(transform),
        transform=transform,
        rotation=float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        shift=float(np.linalg.norm(moved)),
        similarity=similarity,
        similarity_before=_similarity(fixed, movable, identity)[0],
        agreement=agreement,
        overlap=overlap,
    )
    return _judged(result)


def _judged(found: Registration) -> Registration:
    from dataclasses import replace

    if found.overlap < LEAST_OVERLAP:
        raise RegistrationError(f"it covers {found.overlap:.0%} of the reference's head, {LEAST_OVERLAP:.0%} are needed")
    if found.rotation > LARGEST_ROTATION or found.shift > LARGEST_SHIFT:
        raise RegistrationError(
            f"the best match turns the head by {found.rotation:.0f} degrees and moves it by {found.shift:.0f} mm, "
            "which is implausible within one visit"
        )
    if found.similarity < REFUSED_BELOW:
        raise RegistrationError(
            f"it has too little in common with the reference (similarity {found.similarity:.3f}, "
            f"at least {REFUSED_BELOW:g} is needed): another patient, another region or a damaged image?"
        )
    if found.similarity < found.similarity_before - 0.005:
        raise RegistrationError(
            f"it matched better before ({found.similarity_before:.3f}) than after ({found.similarity:.3f}) the search"
        )
    warnings = []
    if found.similarity < POOR_BELOW:
        warnings.append(f"poor match (similarity {found.similarity:.3f}, usually above {POOR_BELOW:g}): look at it")
    if found.agreement > AGREEMENT_MM:
        warnings.append(f"two starts of the search ended {found.agreement:.1f} mm apart: look at it")
    if found.overlap < 0.9:
        warnings.append(f"covers only {found.overlap:.0%} of the head")
    return replace(found, warnings=tuple(warnings))


def _scaled(volume: Volume) -> Volume:
    """Intensities cut at the 99.9th percentile: one bright vessel would otherwise take most of the histogram."""
    low, high = float(volume.data.min()), float(np.quantile(volume.data, 0.999))
    high = high if high > low else float(volume.data.max())
    return Volume(np.clip(volume.data, low, high), volume.affine)


def _starts(fixed: sitk.Image, moving: sitk.Image, centre: list[float]) -> list[sitk.Euler3DTransform]:
    header = sitk.Euler3DTransform()
    header.SetCenter(centre)
    moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    mass = sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), moments)
    return [header, sitk.Euler3DTransform(mass)]


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
    method.SetOptimizerAsRegularStepGradientDescent(step, 1e-3, 150, relaxationFactor=0.6)
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


def _similarity(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> tuple[float, float]:
    """Normalised mutual information over the reference's head, and the share of the head that ``moving`` covers."""
    outside = -1.0e9
    there = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, outside))
    here = sitk.GetArrayFromImage(fixed)
    head = here > _otsu(fixed)
    covered = there > outside / 2
    overlap = float((head & covered).sum() / max(1, head.sum()))
    seen = head & covered
    if seen.sum() < 1000:
        return 1.0, overlap
    counts, _, _ = np.histogram2d(here[seen], there[seen], bins=BINS)
    joint = counts / counts.sum()
    entropy = [-float((p[p > 0] * np.log(p[p > 0])).sum()) for p in (joint.sum(1), joint.sum(0), joint)]
    return (entropy[0] + entropy[1]) / entropy[2] if entropy[2] > 0 else 1.0, overlap


def _otsu(image: sitk.Image) -> float:
    filter_ = sitk.OtsuThresholdImageFilter()
    filter_.Execute(image)
    return float(filter_.GetThreshold())
