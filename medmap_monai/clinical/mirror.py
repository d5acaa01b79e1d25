"""How well the mirror image of a head would match: left and right can be told by what is not symmetric in it."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from medmap_monai.clinical.rigid_search import mutual_information, search
from medmap_monai.clinical.volume import LPS_TO_RAS, rigid_to_matrix

_CLOSE = 0.9  # a coarse search misses up to a tenth


def mirrored_information(
    fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform, information: float, seed: int
) -> float:
    """Mutual information (nats) of ``fixed`` with ``moving`` mirrored left for right, where that matches best.

    The search begins where the mirrored head would lie were heads symmetric, and goes to the end where it comes close.

    Args:
        fixed, moving: search images.
        transform: where ``moving`` itself was found, fixed to moving, rigid. information: what it matches there.
        seed: of the random samples.
    """
    flipped, across = _mirrored(moving)
    moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    middle = np.asarray(
        sitk.CenteredTransformInitializer(fixed, fixed, sitk.Euler3DTransform(), moments).GetFixedParameters()[:3]
    )
    sagittal = _reflection(middle, _towards_left(fixed)[1])
    place = across @ LPS_TO_RAS @ rigid_to_matrix(transform) @ LPS_TO_RAS @ sagittal
    start = sitk.Euler3DTransform()
    start.SetCenter(middle.tolist())
    left, _, right = np.linalg.svd(place[:3, :3])
    start.SetMatrix((left @ right).ravel().tolist(), 1e-6)
    start.SetTranslation(((place @ [*middle, 1.0])[:3] - middle).tolist())
    try:
        found, _ = search(fixed, flipped, start, seed, levels=((4, 4.0, 1.0), (2, 2.0, 0.3)), step=4.0)
        mirrored = mutual_information(fixed, flipped, found)
        if mirrored > _CLOSE * information:
            found, _ = search(fixed, flipped, found, seed, levels=((1, 0.0, 0.1),), step=0.5)
            mirrored = mutual_information(fixed, flipped, found)
    except RuntimeError:  # the two do not overlap there
        return 0.0
    return mirrored


def _towards_left(image: sitk.Image) -> tuple[int, np.ndarray]:
    """The image's axis that is nearest to left-right, and its direction in the world."""
    directions = np.asarray(image.GetDirection()).reshape(3, 3)
    axis = int(np.argmax(np.abs(directions[0])))
    return axis, directions[:, axis]


def _mirrored(image: sitk.Image) -> tuple[sitk.Image, np.ndarray]:
    """The image with that axis reversed, in the same place, and the reflection (4, 4) of the world that this is."""
    axis, normal = _towards_left(image)
    values = np.flip(sitk.GetArrayFromImage(image), 2 - axis)  # arrays are (z, y, x)
    flipped = sitk.GetImageFromArray(np.ascontiguousarray(values))
    flipped.CopyInformation(image)
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    return flipped, _reflection(np.asarray(middle), normal)


def _reflection(point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(4, 4) at the plane through ``point`` across ``normal`` (of length one)."""
    matrix = np.eye(4)
    matrix[:3, :3] -= 2 * np.outer(normal, normal)
    matrix[:3, 3] = 2 * np.dot(normal, point) * normal
    return matrix
