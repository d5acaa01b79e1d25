"""What an inference run has to do: the studies found, what is wrong with some, and what is done already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmap_monai.data.cohort import scan_cohort
from medmap_monai.data.edition import Edition
from medmap_monai.data.study import Study, StudyError
from medmap_monai.data.study_dataset import ERROR


class InferenceRecords(list[dict[str, Any]]):
    """Records for :class:`~medmap_monai.data.study_dataset.StudyDataset`.

    Attributes:
        overwrite: whether finished cases are to be segmented again; the predictor, which knows weights and
            configuration, decides which are finished.
        problem: why there is nothing to do at all (absent folder, no study), or None. A configuration can thus be
            instantiated without data; the run raises it.
        edition: what the studies were read as; None with a ``problem``.
    """

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        overwrite: bool,
        problem: Exception | None,
        edition: Edition | None = None,
    ) -> None:
        super().__init__(records)
        self.overwrite = overwrite
        self.problem = problem
        self.edition = edition


def _require_apart(
    source: str | os.PathLike[str], output_dir: str | os.PathLike[str], studies: Sequence[Study]
) -> None:
    """Results among the images would replace label files of the same name, and hide the studies from the next run."""
    root, output = Path(os.path.realpath(source)), Path(os.path.realpath(output_dir))
    if not root.is_dir() or not output.is_relative_to(root):
        return
    images = (Path(os.path.realpath(image.path)) for study in studies for image in study.images.values())
    if any(image.is_relative_to(output) for image in images):
        raise ValueError(
            f"output folder {output_dir} holds images of the studies; once it holds results it is read as no study any "
            "more: choose another, such as a new folder in it"
        )


def inference_records(
    source: str | os.PathLike[str],
    edition: str | Edition | None,
    modalities: Sequence[str],
    output_dir: str | os.PathLike[str],
    overwrite: bool = False,
) -> InferenceRecords:
    """Scan ``source`` (a folder with one study or many, or a manifest) for studies to segment.

    A study that cannot be used becomes a record with an error, so that it is reported and the others go on.

    Args:
        source: folder or CSV/JSON manifest.
        edition: edition of the studies; detected when None.
        modalities: what the network knows; a study without any of them is an error record.
        output_dir: where results go; a folder of results inside ``source`` holds no studies, so results may not be
            written among the images.
        overwrite: segment finished cases again.
    """
    try:
        scan = scan_cohort(source, edition)
        _require_apart(source, output_dir, scan.studies)
    except (OSError, ValueError) as error:
        return InferenceRecords([], overwrite, error)
    records: list[dict[str, Any]] = [{"case_id": e.case_id, ERROR: str(e)} for e in scan.errors]
    for study in scan.studies:
        if not set(study.images) & set(modalities):
            message = f"has {sorted(study.images)}, none of the network's modalities {list(modalities)}"
            records.append({"case_id": study.case_id, ERROR: str(StudyError(study.case_id, message))})
        else:
            records.append({"case_id": study.case_id, "study": study, "available": None})
    return InferenceRecords(sorted(records, key=lambda r: r["case_id"]), overwrite, None, scan.edition)
