"""The files of a phantom cohort: names, geometry and voxel values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medmap_monai.data.phantom_brain import brain_phantom
from medmap_monai.data.phantom_heart import heart_phantom
from medmap_monai.data.phantom_recipe import PhantomRecipe

# Millimetres per voxel: the BraTS grid, and a thick-slice short-axis stack.
_SPACING = {"brain": (1.0, 1.0, 1.0), "heart": (1.25, 1.25, 8.0)}


def case_files(root: Path, recipe: PhantomRecipe, case_id: str) -> Iterator[tuple[Path, str | None]]:
    """The files of a case, each with its modality (None: the label)."""
    edition = recipe.edition
    folder = root / edition.case_folder.format(case=case_id)
    for name in recipe.kept[case_id]:
        yield folder / f"{case_id}{edition.suffixes[name]}.nii.gz", name
    if edition.label_suffixes:
        yield folder / f"{case_id}{edition.label_suffixes[0]}.nii.gz", None


def write_case(root: Path, recipe: PhantomRecipe, number: int, case_id: str) -> None:
    """Generate case ``number`` and write its files below ``root``."""
    make = brain_phantom if recipe.body_part == "brain" else heart_phantom
    phantom = make(recipe.shape, (recipe.seed, number), recipe.p_no_et)
    disk_values = recipe.edition.disk_values
    matrix = phantom_affine(recipe)
    for path, modality in case_files(root, recipe, case_id):
        path.parent.mkdir(parents=True, exist_ok=True)
        if modality is None:
            lookup = np.array([disk_values[index] for index in range(int(phantom.label.max()) + 1)])
            values = lookup[phantom.label].astype(np.uint8 if lookup.max() < 256 else np.int16)
        else:
            image = phantom.images[modality]
            # whole numbers as scanners store them; inside the brain never 0, which means "outside"
            values = np.where(image > 0, np.maximum(np.rint(image), 1), 0).astype(np.int16)
        volume = nib.Nifti1Image(values, matrix)
        volume.set_sform(matrix, 1)
        volume.set_qform(matrix, 1)
        volume.header.set_xyzt_units("mm", "sec")
        volume.header["descrip"] = b"SYNTHETIC PHANTOM (medmap-monai)"
        nib.save(volume, path)


def phantom_affine(recipe: PhantomRecipe) -> NDArray[np.float64]:
    """Voxel to patient (RAS, mm) matrix of a phantom.

    ``straight`` is the BraTS convention (voxel axes to the left, back and top, so that an LPS viewer shows an
    identity); ``oblique`` turns it by 20, -15 and 25 degrees about the three axes, as a tilted acquisition.
    """
    spacing = np.array(_SPACING[recipe.body_part])
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([-1.0, -1.0, 1.0]) * spacing
    matrix[1, 3] = (recipe.shape[1] - 1) * spacing[1]
    if recipe.affine == "oblique":
        turn = np.eye(3)
        for axis, degrees in enumerate((20.0, -15.0, 25.0)):
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            a, b = [i for i in range(3) if i != axis]
            step = np.eye(3)
            step[a, a], step[a, b], step[b, a], step[b, b] = c, -s, s, c
            turn = turn @ step
        matrix[:3] = turn @ matrix[:3]
    return matrix
