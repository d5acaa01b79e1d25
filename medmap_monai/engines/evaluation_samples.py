"""Samples of an evaluation: preprocessed studies, or why one cannot be used; and their physical size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from monai.data.utils import affine_to_spacing
from monai.utils import look_up_option
from torch.utils.data import Dataset

from medmap_monai.data.evaluation_records import RecordSource
from medmap_monai.data.study import Study
from medmap_monai.data.study_dataset import ERROR, ORIGIN, failure_of
from medmap_monai.engines.case_origin import case_origin
from medmap_monai.metrics.edge_cases import grid_diagonal
from medmap_monai.transforms.pipelines import PROTOCOLS

FILE = "file"


class EvaluationSamples(Dataset[dict[str, Any]]):
    """Preprocessed records; one that cannot be loaded becomes ``{"case_id", "error", "file"}``.

    Unlike :class:`~medmap_monai.data.study_dataset.StudyDataset` every fault of a case stays with the case: in an
    evaluation of hours no single file may end the run.

    Args:
        data: records ``{"case_id", "study", ...}``, one that holds ``error`` is passed on; or a callable that returns
            them, which is called when the first sample is asked for.
        transform: record -> sample with ``image`` (M, ...), ``present_mask`` (M,) and ``label`` (1, ...).
        protocol: ``clinical`` or ``legacy``; names the preprocessing and windows that were configured.
        name: what the data are, for the headings of the report; empty: what ``data`` says of itself.
        synthetic: whether records given as a list are synthetic; a cohort on disk says so itself, by its marker.

    Raises:
        ValueError: for an unknown protocol.
    """

    def __init__(
        self,
        data: RecordSource,
        transform: Callable[[dict[str, Any]], Mapping[Any, Any]],
        protocol: str = "clinical",
        name: str = "",
        synthetic: bool = False,
    ) -> None:
        self.data = data
        self.transform = transform
        self.protocol = look_up_option(protocol, PROTOCOLS)
        self.name = name
        self.synthetic = synthetic

    @cached_property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """The records, read from their source once."""
        return list(self.data()) if callable(self.data) else self.data

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = dict(self.records[index])
        if ERROR in record:
            return record
        try:
            study = record.get("study")
            granted = record.get("available")
            origin = {ORIGIN: case_origin(study, self.transform, available=granted)} if isinstance(study, Study) else {}
            return {**self.transform(record), **origin, "case_id": record["case_id"]}
        except Exception as error:
            file, reason = failure_of(error)
            return {"case_id": record["case_id"], ERROR: reason, FILE: file}


class Geometry(NamedTuple):
    """``spacing``: mm per voxel of the map that is scored; ``diagonal``: mm, of the image grid as it was loaded."""

    spacing: tuple[float, ...]
    diagonal: float


def label_geometry(label: Any) -> Geometry:
    """Geometry of a label (1, ...); voxels of 1 mm where it carries no affine.

    The diagonal is that of the file and not of what a crop left of it, so that a case's worst HD95 does not depend on
    the preprocessing.
    """
    dims = label.ndim - 1
    if not hasattr(label, "affine"):
        spacing = (1.0,) * dims
        return Geometry(spacing, grid_diagonal(tuple(label.shape[1:]), spacing))
    spacing = _spacing(label.affine, dims)
    shape, affine = label.meta.get("spatial_shape"), label.meta.get("original_affine")
    if shape is None or affine is None:
        return Geometry(spacing, grid_diagonal(tuple(label.shape[1:]), spacing))
    size = tuple(int(n) for n in shape)
    return Geometry(spacing, grid_diagonal(size, _spacing(affine, len(size))))


def _spacing(affine: Any, dims: int) -> tuple[float, ...]:
    return tuple(float(s) for s in affine_to_spacing(torch.as_tensor(affine), r=dims))
