"""Load a study of which any non-empty subset of the modalities exists."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import look_up_option

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import get_edition
from medmap_monai.data.nifti_file import MEMORY_LIMIT
from medmap_monai.data.study import ImageSource, Study, StudyError
from medmap_monai.data.study_of_file import study_of_file
from medmap_monai.modalities import Modalities
from medmap_monai.transforms.alignment import why_not_aligned
from medmap_monai.transforms.background import UnfitError, clean
from medmap_monai.transforms.label_values import map_label_values
from medmap_monai.transforms.nifti_geometry import pack_geometry
from medmap_monai.transforms.nifti_provenance import read_provenance
from medmap_monai.transforms.resample import resample_to_grid
from medmap_monai.transforms.shown import SHOWN, pack_shown
from medmap_monai.transforms.study_volume import Volume, grid_difference, read_volume, same_grid


class LoadStudy(Transform):
    """Read whichever files of a study exist and stack them in the configured order.

    A modality that does not exist, or that the split does not grant, becomes a zero channel; the file of one that is
    not granted is never opened. All files must share one grid, or ``resample`` brings them to the grid of the
    reference modality: the first one that is present, in the configured order.

    A background that is another constant than zero is brought to zero, and a file in which every voxel is the same
    counts as absent; the meta entry ``notes`` says so. Where the edition holds brains without skull, a head is refused.

    Args:
        modalities: names in channel order.
        edition: overrides the edition that the study names (its label values).
        label: ``required``, ``optional`` (used when there is one) or ``none`` (never read).
        resample: bring modalities with another grid to the reference grid (linear; labels nearest) instead of failing.
            Brains that do not lie on each other there are refused all the same.
        tolerance: largest difference between two affines (mm, per entry) that still counts as one grid.
        memory_limit: most bytes that the voxels of one file may take.
        shown: add the entry ``shown``, which says where each modality shows something
            (:mod:`medmap_monai.transforms.shown`).

    Example:
        >>> LoadStudy(("flair", "t1ce", "t1", "t2"))(study)["present_mask"]  # doctest: +SKIP
        tensor([ True, False,  True, False])
    """

    def __init__(
        self,
        modalities: Sequence[str],
        edition: str | Edition | None = None,
        label: str = "optional",
        resample: bool = False,
        tolerance: float = 1e-3,
        memory_limit: int = MEMORY_LIMIT,
        shown: bool = False,
    ) -> None:
        self.modalities = modalities if isinstance(modalities, Modalities) else Modalities(tuple(modalities))
        self.edition = None if edition is None else get_edition(edition)
        self.label = look_up_option(label, ("required", "optional", "none"))
        self.resample = resample
        self.tolerance = tolerance
        self.memory_limit = memory_limit
        self.shown = shown

    def __call__(self, study: Study, available: Iterable[str] | None = None) -> dict[str, Any]:
        """Load ``study``; ``available`` are the modalities that a split grants (None: all that exist).

        Returns:
            ``image`` MetaTensor float32 (M, X, Y, Z), ``present_mask`` and ``modality_mask`` bool (M,), ``case_id``,
            and ``label`` MetaTensor uint8 (1, X, Y, Z) of class indices where there is one.

        Raises:
            StudyError: no modality present, an unreadable or truncated file, NaN or Inf, wrong number of dimensions,
                grids that differ, a label value that the edition does not know.
        """
        granted = None if available is None else set(available)
        names = [m for m in self.modalities if m in study.images and (granted is None or m in granted)]
        if not names:
            raise StudyError(
                study.case_id,
                f"no modality to load; configured are {list(self.modalities)}, on disk {sorted(study.images)}, "
                f"granted by the split {'all' if granted is None else sorted(granted)}",
            )
        edition = self.edition or get_edition(study.edition)
        files: dict[Path, Volume] = {}
        notes: list[str] = []
        volumes: dict[str, Volume] = {}
        for name in names:
            volume = read_volume(study.case_id, study.images[name], self.memory_limit, files)
            try:
                data, note = clean(volume.data, volume.affine, edition.skull_stripped)
            except UnfitError as error:
                raise StudyError(study.case_id, str(error), volume.path) from error
            notes += [f"{name}: {note}"] if note else []
            if data is not None:
                volumes[name] = volume._replace(data=data)
        files.clear()
        names = list(volumes)
        if not names:
            raise StudyError(study.case_id, f"no modality shows anything ({'; '.join(notes)})")
        reference = volumes[names[0]]
        image = np.zeros((len(self.modalities), *reference.data.shape), dtype=np.float32)
        resampled = []
        for name in names:
            volume = volumes.pop(name)
            if same_grid(volume, reference, self.tolerance):
                image[self.modalities.names.index(name)] = volume.data
                continue
            image[self.modalities.names.index(name)] = self._resampled(
                study, name, volume, names[0], reference, edition
            )
            resampled.append(name)
        if resampled:
            notes.append(f"resampled {', '.join(resampled)} to the grid of {names[0]}")
        if self.label == "required" and study.label is None:
            raise StudyError(study.case_id, "has no label file, which training and evaluation need")
        classes = None
        if self.label != "none" and study.label is not None:
            classes, note = self._read_label(study, study.label, edition, names[0], reference)
            notes += [note] if note else []
        meta = {
            "filename_or_obj": f"{study.case_id}.nii.gz",  # writers name their output after it
            "case_id": study.case_id,
            "edition": str(edition),
            "label_values": json.dumps(edition.disk_values),  # an edition of one's own is not found by its name
            "reference": names[0],
            "resampled": "+".join(resampled),
            "notes": notes,
            "original_affine": reference.affine.copy(),
            "original_shape": np.asarray(reference.data.shape),
            "spatial_shape": np.asarray(reference.data.shape),
            "original_channel_dim": 0,
            "original_dtype": str(reference.header.get_data_dtype()),
            "nifti_geometry": pack_geometry(reference.header),
        }
        mask = torch.tensor(self.modalities.mask(names))
        loaded: dict[str, Any] = {
            "image": MetaTensor(torch.from_numpy(image), affine=torch.from_numpy(reference.affine), meta=dict(meta)),
            "present_mask": mask,
            "modality_mask": mask.clone(),
            "case_id": study.case_id,
        }
        if self.shown:
            loaded[SHOWN] = pack_shown(loaded["image"])
        if classes is not None:
            loaded["label"] = MetaTensor(
                torch.from_numpy(classes)[None], affine=torch.from_numpy(reference.affine.copy()), meta=dict(meta)
            )
        return loaded

    def _resampled(
        self, study: Study, name: str, volume: Volume, reference_name: str, reference: Volume, edition: Edition
    ) -> np.ndarray:
        """A modality on the reference grid, where that is wanted and the two lie on each other."""
        if not self.resample:
            raise StudyError(study.case_id, grid_difference(name, volume, reference_name, reference), volume.path)
        shape, affine = reference.data.shape, reference.affine
        moved = resample_to_grid(volume.data.astype(np.float32, copy=False), volume.affine, shape, affine)
        if edition.skull_stripped:
            whole = np.ones(volume.data.shape, dtype=np.uint8)
            covered = resample_to_grid(whole, volume.affine, shape, affine, "nearest") > 0
            fault = why_not_aligned(moved, reference.data, affine, covered)
            if fault:
                raise StudyError(
                    study.case_id,
                    f"{name} does not lie on {reference_name}: {fault}; medmap prepare registers the sequences of a "
                    "study, --resample does not",
                    volume.path,
                )
        return moved

    def _read_label(
        self, study: Study, path: Path, edition: Edition, name: str, reference: Volume
    ) -> tuple[np.ndarray, str]:
        """Class indices on the reference grid, and what to note about them."""
        label = read_volume(study.case_id, ImageSource(Path(path)), self.memory_limit)
        if read_provenance(path) is not None:
            raise StudyError(
                study.case_id,
                "is a prediction of this package, not a label (once corrected in a viewer it is one)",
                path,
            )
        classes = map_label_values(label.data, edition, study.case_id, label.path)
        if same_grid(label, reference, self.tolerance):
            return classes, ""
        if not self.resample:
            raise StudyError(study.case_id, grid_difference("label", label, name, reference), label.path)
        moved = resample_to_grid(classes, label.affine, reference.data.shape, reference.affine, "nearest")
        return moved, f"resampled the label to the grid of {name}"


class LoadStudyd(Transform):
    """Dictionary version of :class:`LoadStudy`.

    An item holds ``study`` and, where a split limits the case, ``available`` (names, or None). Both are replaced by
    what was loaded; other entries stay. An item without ``study`` holds ``image``, any file of the study or its folder,
    and may hold ``label``, a file: so programs such as MONAI Label hand over one image, and its study is found.

    Args:
        modalities: names in channel order.
        availability: what ``available`` means. ``enforce``: other modalities are never read (imperfect-data
            training). ``ignore``: everything on disk is used (perfect-data training). ``defer``: everything is read
            and ``available`` stays in the item for
            :class:`~medmap_monai.transforms.imbalanced_dropout.ImbalancedModalityDropoutd` (the published
            preprocessing, whose crop box and statistics come from all modalities).
        study_key, available_key: names of the two input entries.
        kwargs: see :class:`LoadStudy`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        availability: str = "enforce",
        study_key: Hashable = "study",
        available_key: Hashable = "available",
        **kwargs: Any,
    ) -> None:
        self.loader = LoadStudy(modalities, **kwargs)
        self.availability = look_up_option(availability, ("enforce", "ignore", "defer"))
        self.study_key = study_key
        self.available_key = available_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        study = item.pop(self.study_key) if self.study_key in item else self._found(item)
        available = item.pop(self.available_key, None)
        item.update(self.loader(study, available if self.availability == "enforce" else None))
        if self.availability == "defer" and available is not None:
            item[self.available_key] = available
        return item

    def _found(self, item: dict[Hashable, Any]) -> Study:
        """The study around the file that ``image`` names."""
        if not isinstance(item.get("image"), str | os.PathLike):
            raise KeyError(
                f"an item needs {self.study_key!r}, or 'image' with the path of a file; it has {sorted(map(str, item))}"
            )
        study = study_of_file(item.pop("image"), self.loader.edition)
        label = item.pop("label", None)
        return replace(study, label=Path(label)) if isinstance(label, str | os.PathLike) else study


LoadStudyD = LoadStudyDict = LoadStudyd
