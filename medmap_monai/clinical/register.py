"""Rigid registration of two sequences of one head, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from medmap_monai.clinical.grid import field_problem
from medmap_monai.clinical.mirror import mirrored_information
from medmap_monai.clinical.rigid_search import (
    distance,
    head_overlap,
    head_points,
    mutual_information,
    neighbours,
    search,
    search_image,
    search_starts,
)
from medmap_monai.clinical.volume import Volume, rigid_to_matrix

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
#: Mutual information of the mirrored image against that of the image itself. Heads are nearly symmetric, but true
#: matches lose an eighth of it when mirrored (docs/reference/prepare.md); an image that gains is mirrored itself.
MIRRORED_ABOVE = 1.02
SIDES_UNSURE_ABOVE = 0.97


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
    information_mirrored: of the image mirrored left for right, where that matches best.
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
    information_mirrored: float
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
            "mutual_information_mirrored": round(self.information_mirrored, 4),
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
    return replace(found, warnings=tuple(doubts(found)))


def _found(reference: Volume, moving: Volume, seed: int) -> Registration:
    for which, volume in (("the reference", reference), ("the image", moving)):
        problem = field_problem(volume)
        if problem:
            raise RegistrationError(f"{which}: {problem}")
    fixed, movable = search_image(reference), search_image(moving)
    starts = search_starts(fixed, movable)
    coarse = []
    for start in starts:
        try:
            coarse.append(search(fixed, movable, start, seed, levels=((4, 4.0, 1.0), (2, 2.0, 0.3)), step=4.0))
        except RuntimeError:
            continue  # this start leaves the images without overlap
    if not coarse:
        raise RegistrationError("the two images do not overlap anywhere")
    head = head_points(fixed)
    coarse.sort(key=lambda result: result[1])
    best = coarse[0][0]
    agreement = min((distance(best, other, head) for other, _ in coarse[1:]), default=float("inf"))
    transform, _ = search(fixed, movable, best, seed, levels=((1, 0.0, 0.1),), step=0.5)
    centre = np.asarray(starts[0].GetCenter())
    cosine = (np.trace(np.asarray(transform.GetMatrix()).reshape(3, 3)) - 1) / 2
    information = mutual_information(fixed, movable, transform)
    beside = float(np.mean([mutual_information(fixed, movable, other) for other in neighbours(transform, centre)]))
    return Registration(
        matrix=rigid_to_matrix(transform),
        transform=transform,
        rotation=float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        shift=float(np.linalg.norm(np.asarray(transform.TransformPoint(centre.tolist())) - centre)),
        information=information,
        information_before=mutual_information(fixed, movable, starts[0]),
        information_mirrored=mirrored_information(fixed, movable, transform, information, seed),
        sharpness=1 - beside / information if information > 0 else 0.0,
        agreement=agreement,
        overlap=head_overlap(fixed, movable, transform),
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
    if found.information_mirrored > MIRRORED_ABOVE * found.information:
        return (
            f"its mirror image matches better ({found.information_mirrored:.3f}) than itself "
            f"({found.information:.3f}): its header and that of the reference disagree on left and right, one is wrong"
        )
    if found.agreement > 3 * AGREEMENT_MM:
        return f"searches from different starts end {found.agreement:.0f} mm apart: the match is a matter of luck"
    if found.information < found.information_before - 0.01:
        return (
            f"it matched better before ({found.information_before:.3f}) than after ({found.information:.3f}) the search"
        )
    return ""


def doubts(found: Registration) -> list[str]:
    """What speaks against a result that is not refused, in sentences for people."""
    told = []
    if found.sharpness < POOR_BELOW:
        told.append(f"poor match (sharpness {found.sharpness:.2f}, usually above {POOR_BELOW:g}): look at it")
    if found.agreement > AGREEMENT_MM:
        told.append(f"two starts of the search ended {found.agreement:.1f} mm apart: look at it")
    if found.information_mirrored > SIDES_UNSURE_ABOVE * found.information:
        told.append(
            f"its mirror image matches as well ({found.information_mirrored:.3f} against {found.information:.3f}): "
            "make sure that left and right are right"
        )
    if found.overlap < 0.9:
        told.append(f"covers only {found.overlap:.0%} of the head")
    return told
