"""Studies for inference: one that cannot be loaded is reported, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset

from medmap_monai.data.study import StudyError

ERROR = "error"


def find_study_error(error: BaseException) -> StudyError | None:
    """The :class:`StudyError` that caused ``error`` (MONAI wraps what a transform raises), or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StudyError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


class StudyDataset(Dataset[dict[str, Any]]):
    """Load studies; an unusable one becomes ``{"case_id": ..., "error": message}`` instead of ending the run.

    Args:
        data: records ``{"case_id", "study", ...}``; a record that already holds ``error`` is passed on.
        transform: the loading and preprocessing transforms.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.data = data
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.data[index]
        if ERROR in record:
            return {"case_id": record["case_id"], ERROR: str(record[ERROR])}
        try:
            return self.transform(dict(record))
        except Exception as error:
            cause = find_study_error(error)
            if cause is None:
                raise
            return {"case_id": record["case_id"], ERROR: str(cause)}
