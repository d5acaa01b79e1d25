"""What an inference run has to do: the studies found, what is wrong with some, and what is done already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from medmap_monai.data.cohort import scan_cohort
from medmap_monai.data.edition import Edition
from medmap_monai.data.study import StudyError
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
        output_dir: where results go; a folder of results inside ``source`` holds no studies.
        overwrite: segment finished cases again.
    """
    try:
        scan = scan_cohort(source, edition)
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
