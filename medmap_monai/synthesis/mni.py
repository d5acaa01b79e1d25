"""The anatomy that needs no files: tissue maps of the MNI152 template that the nilearn package carries."""

from __future__ import annotations

from functools import lru_cache

import nibabel as nib
import numpy as np
import torch
from monai.utils import optional_import
from scipy.ndimage import distance_transform_edt

from medmap_monai.synthesis.anatomy import Anatomy, _anatomy


@lru_cache(maxsize=4)
def mni_anatomy(spacing: float) -> Anatomy:
    """MNI152 (nonlinear, 2009): grey and white matter as they are, fluid is the rest of the brain mask.

    Deep grey matter is grey matter near the centre of the brain, and there are no labels of the cerebellum; strong
    deformation makes one brain many. Source of the maps: nilearn's wheel (extra ``synthesis``).

    Raises:
        ImportError: nilearn is not installed; the message names the extra.
    """
    datasets, found = optional_import("nilearn.datasets")
    if not found:
        raise ImportError(
            "the built-in anatomy comes with nilearn: pip install 'medmap-monai[synthesis]', "
            "or give a folder of brain label maps"
        )
    grey, white, mask = (
        nib.as_closest_canonical(load(resolution=1))
        for load in (
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    )
    g, w = (np.asarray(image.dataobj, dtype=np.float32).clip(0, 1) for image in (grey, white))
    brain = np.asarray(mask.dataobj) > 0
    total = np.maximum(g + w, 1.0)
    g, w = g / total * brain, w / total * brain
    world = nib.affines.apply_affine(grey.affine, np.moveaxis(np.indices(g.shape), 0, -1))
    central = (np.abs(world[..., 0]) < 34) & (np.abs(world[..., 1] + 4) < 30) & (np.abs(world[..., 2] - 6) < 16)
    depth = distance_transform_edt(brain)  # mm
    deep = g * central * (depth > 22)
    below = (world[..., 2] < -12) & (world[..., 1] < -22) & brain
    core = (g + w > 0.4) | (depth > 12)
    fluid = np.where(brain, 1 - g - w, 0)
    inside = np.argwhere(brain)
    lo, hi = np.maximum(inside.min(0) - 4, 0), inside.max(0) + 5
    stack = np.stack([w, g - deep, deep, fluid, np.zeros_like(g), core, below]).astype(np.float32)
    stack = stack[:, lo[0] : hi[0], lo[1] : hi[1], lo[2] : hi[2]]
    # the template is larger than most brains (1.9 l): smaller voxels make it an ordinary one of 1.3 l
    zooms = tuple(0.88 * float(z) for z in grey.header.get_zooms()[:3])
    return _anatomy(torch.from_numpy(stack), zooms, spacing, "MNI152")
