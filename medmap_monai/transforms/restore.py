"""From a prediction in model space to a label file on the grid of the study's own images."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SaveImaged, Transform

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import get_edition
from medmap_monai.transforms.nifti_geometry import label_image
from medmap_monai.transforms.nifti_provenance import add_provenance
from medmap_monai.transforms.resample import resample_to_grid
from medmap_monai.transforms.shown import SHOWN, where_shown
from medmap_monai.utils.files import atomic_path
from medmap_monai.utils.output import label_map_path

#: JSON text beside a sample that belongs into the header of its label map
PROVENANCE = "provenance"
#: bool (1, X, Y, Z) beside a restored label map: where the modalities that were used show something
SHOWN_HERE = "shown_here"


class RestoreToOriginal(Transform):
    """Bring a prediction back to the grid of the reference modality's file.

    Works from the affine that the prediction carries, not from recorded operations: whatever cropped, padded, flipped,
    reordered or resampled the image on the way in has left its trace there. Where the two grids share their voxels the
    labels are copied exactly; otherwise (a changed voxel size) class probabilities are interpolated linearly before the
    class is chosen, and label maps by nearest neighbour. What the model space does not cover is background.

    Raises:
        ValueError: when the prediction is no ``MetaTensor`` of a loaded study, so that its place is unknown.
    """

    def __call__(self, prediction: MetaTensor) -> MetaTensor:
        """Logits or probabilities (K, X, Y, Z), or class indices (1, X, Y, Z) -> indices uint8 (1, X0, Y0, Z0)."""
        if not isinstance(prediction, MetaTensor) or "original_shape" not in prediction.meta:
            raise ValueError(
                "the prediction has lost the geometry of its study: network and inferer must keep MetaTensors, "
                f"got {type(prediction).__name__}"
            )
        meta = {key: value for key, value in prediction.meta.items() if key != "affine"}  # the new one follows
        shape = tuple(int(n) for n in meta["original_shape"])
        affine = np.asarray(meta["original_affine"], dtype=np.float64)
        own_affine = np.asarray(prediction.affine, dtype=np.float64)
        scores = prediction.detach().as_subclass(torch.Tensor).cpu()
        to_model = np.linalg.inv(own_affine) @ affine
        places = _shared_voxels(to_model, shape)
        if places is not None:
            classes = scores.argmax(dim=0) if scores.shape[0] > 1 else scores[0].round()
            restored = _copy_voxels(classes.to(torch.uint8), places, shape)
        elif scores.shape[0] == 1:
            labels = scores[0].round().to(torch.uint8).numpy()
            restored = torch.from_numpy(resample_to_grid(labels, own_affine, shape, affine, "nearest"))
        else:
            restored = _resample_probabilities(class_probabilities(scores).numpy(), own_affine, shape, affine)
        return MetaTensor(restored[None], affine=torch.from_numpy(affine.copy()), meta=meta)


def _shared_voxels(to_model: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """``to_model`` (original voxel -> model voxel) as whole numbers where it is a reordering of axes and a shift.

    None where voxels do not coincide to a hundredth over the whole grid.
    """
    whole = np.rint(to_model)
    turn = np.abs(whole[:3, :3])
    if not ((turn.sum(axis=0) == 1).all() and (turn.sum(axis=1) == 1).all()):
        return None
    corners = np.array([[*corner, 1.0] for corner in product(*((0, n - 1) for n in shape))]).T
    apart = np.abs((to_model - whole) @ corners).max()
    return whole.astype(np.int64) if apart < 0.01 else None


def _copy_voxels(classes: torch.Tensor, to_model: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """``classes`` in model space on the original grid: axes reordered and flipped, cut, filled with background."""
    model_axis = [int(np.flatnonzero(to_model[:3, axis])[0]) for axis in range(3)]
    moved = classes.permute(model_axis)
    source, target = [], []
    for axis, size in enumerate(shape):
        step = int(to_model[model_axis[axis], axis])
        shift = int(to_model[model_axis[axis], 3])
        extent = moved.shape[axis]
        if step < 0:
            moved = moved.flip(axis)
        start = -shift if step > 0 else shift - (extent - 1)  # original index of the first model voxel
        first, last = max(start, 0), max(min(start + extent, size), max(start, 0))
        target.append(slice(first, last))
        source.append(slice(first - start, last - start))
    restored = torch.zeros(shape, dtype=torch.uint8)
    restored[tuple(target)] = moved[tuple(source)]
    return restored


def class_probabilities(scores: torch.Tensor) -> torch.Tensor:
    """``scores`` (K, ...) as probabilities; those that are probabilities already (windows were blended so) stay."""
    scores = scores.float()
    are_probabilities = bool(((scores.sum(dim=0) - 1).abs() < 1e-3).all()) and bool((scores > -1e-3).all())
    return scores if are_probabilities else scores.softmax(dim=0)


def _resample_probabilities(
    probabilities: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target_affine: np.ndarray
) -> torch.Tensor:
    """Class of the highest linearly interpolated probability, one class at a time to save memory."""
    best = resample_to_grid(probabilities[0], affine, shape, target_affine, fill=1.0)  # outside is background
    classes = np.zeros(shape, dtype=np.uint8)
    for index in range(1, len(probabilities)):
        probability = resample_to_grid(probabilities[index], affine, shape, target_affine)
        higher = probability > best
        classes[higher] = index
        best = np.where(higher, probability, best)
    return torch.from_numpy(classes)


class RestoreToOriginald(MapTransform):
    """Dictionary version of :class:`RestoreToOriginal`.

    Where the item says what its modalities show (entry ``shown``), the map is background wherever those that were used
    (``mask_key``) show nothing, and :data:`SHOWN_HERE` gets where they do.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        allow_missing_keys: bool = False,
        mask_key: Hashable = "modality_mask",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.restore = RestoreToOriginal()
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.restore(item[key])
            if SHOWN not in item or self.mask_key not in item:
                continue
            where = where_shown(self.shown(item[SHOWN]), item[self.mask_key])
            item[key][~where] = 0
            item[SHOWN_HERE] = where
        return item

    def shown(self, shown: MetaTensor) -> MetaTensor:
        """The entry ``shown`` on the original grid; as it is where it lies there already."""
        original = tuple(int(n) for n in shown.meta["original_shape"])
        apart = np.abs(np.asarray(shown.affine) - np.asarray(shown.meta["original_affine"])).max()
        return shown if tuple(shown.shape[1:]) == original and apart < 1e-6 else self.restore(shown)


class SaveLabelMap(Transform):
    """Write class indices on the original grid as a NIfTI file with the edition's label values on disk.

    The file appears under its name only when it is complete. Affine, geometry codes and units are those of the
    reference modality's file, bit for bit. Label values are those of the edition that the study was read as; what
    they mean, and where the map comes from, stands in a text extension of the header.

    Args:
        output_dir: folder; files are named by :func:`medmap_monai.utils.output.label_map_path`.
        edition: for label maps that do not tell their study's edition.
    """

    def __init__(self, output_dir: str | os.PathLike[str], edition: str | Edition | None = None) -> None:
        self.output_dir = Path(output_dir)
        self.edition = None if edition is None else get_edition(edition)

    def __call__(self, label_map: MetaTensor, provenance: Mapping[str, Any] | None = None) -> Path:
        """Write ``label_map`` (1, X, Y, Z), as :class:`RestoreToOriginal` gives it, and return the file's path.

        ``provenance`` goes into the header; its ``label_values`` (class index -> value) come before the edition's.

        Raises:
            ValueError: the map lacks its geometry or its edition, or a class has no label value.
        """
        meta = label_map.meta
        case_id = str(meta["case_id"])
        if Path(case_id).name != case_id:
            raise ValueError(f"case id {case_id!r} cannot be part of a file name")
        shape = tuple(int(n) for n in meta["original_shape"])
        if tuple(label_map.shape) != (1, *shape):
            raise ValueError(
                f"case {case_id}: label map has shape {tuple(label_map.shape)}, restore it to {shape} first"
            )
        told = dict(provenance or {})
        values, edition = self._values(meta, told)
        classes = label_map[0].as_subclass(torch.Tensor).cpu().numpy()
        image = label_image(
            disk_label_values(classes, values, edition), np.asarray(meta["original_affine"]), meta.get("nifti_geometry")
        )
        add_provenance(image, {**told, "case_id": case_id, "edition": edition, "labels": _table(values, told)})
        path = label_map_path(self.output_dir, case_id)
        with atomic_path(path) as temporary:
            nib.save(image, temporary)
        return path

    def _values(self, meta: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[dict[int, int], str]:
        """Class index -> value on disk, and the name of the edition that says so."""
        if told.get("label_values"):
            values = {int(index): int(value) for index, value in told["label_values"].items()}
            return values, str(told.get("edition", ""))
        if meta.get("label_values"):
            stored = json.loads(str(meta["label_values"]))
            return {int(index): int(value) for index, value in stored.items()}, str(meta.get("edition", ""))
        if meta.get("edition"):
            edition = get_edition(str(meta["edition"]))
        elif self.edition is not None:
            edition = self.edition
        else:
            raise ValueError(f"case {meta['case_id']}: the edition, and with it the label values, are not known")
        return dict(edition.disk_values), edition.name


def _table(values: Mapping[int, int], told: Mapping[str, Any]) -> dict[str, str]:
    """Label value -> name of the class."""
    classes = list(told.get("classes", ()))
    names = {0: "background", **{index: f"class {index}" for index in values}, **dict(enumerate(classes))}
    return {str(values.get(index, index)): name for index, name in sorted(names.items())}


def disk_label_values(classes: np.ndarray, values: Mapping[int, int], edition: str) -> np.ndarray:
    """Class indices -> values on disk, in the smallest integer type that NIfTI readers share."""
    unknown = sorted(set(np.unique(classes).tolist()) - set(values) - {0})
    if unknown:
        raise ValueError(f"classes {unknown} have no label value in edition {edition}, which has {sorted(values)}")
    highest = max(values.values(), default=0)
    dtype = np.uint8 if highest <= 255 else np.int16 if highest <= 32767 else np.int32
    table = np.zeros(max(values, default=0) + 1, dtype=dtype)
    for index, value in values.items():
        table[index] = value
    return table[classes.astype(np.intp)]


class SaveLabelMapd(SaveImaged):
    """Dictionary version of :class:`SaveLabelMap`; the file's path is put under ``saved_key``.

    It counts as MONAI's ``SaveImaged``, whose work it does: programs that write results themselves, MONAI Label say,
    take such transforms out.

    ``provenance``, where an item has it, is JSON text for the header.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        output_dir: str | os.PathLike[str] = ".",
        edition: str | Edition | None = None,
        saved_key: Hashable = "saved_to",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.save = SaveLabelMap(output_dir, edition)
        self.saved_key = saved_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            told = json.loads(item[PROVENANCE]) if item.get(PROVENANCE) else None
            item[self.saved_key] = str(self.save(item[key], told))
        return item


RestoreToOriginalD = RestoreToOriginalDict = RestoreToOriginald
SaveLabelMapD = SaveLabelMapDict = SaveLabelMapd
