"""Studies for inference: one that cannot be loaded is reported, and the others go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from medmap_monai.data.editions import get_edition
from medmap_monai.data.study import Study, StudyError
from medmap_monai.utils.file_stamp import file_stamp

ERROR = "error"
#: JSON text beside a sample: the files it was read from, and the label values of its edition
ORIGIN = "origin"
#: editions of studies that follow no data set's rules
UNKNOWN_EDITIONS = ("generic", "bids")


def find_study_error(error: BaseException) -> StudyError | None:
    """The :class:`StudyError` that caused ``error`` (MONAI wraps what a transform raises), or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StudyError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def failure_of(error: BaseException) -> tuple[str, str]:
    """File (or '') and reason, in one line, of a study that failed, whatever the exception was."""
    study = find_study_error(error)
    if study is not None:
        return str(study.path or ""), study.message
    root: BaseException = error
    while root.__cause__ is not None:  # MONAI wraps what a transform raises
        root = root.__cause__
    text = " ".join(str(root).split())
    if isinstance(root, MemoryError) or "out of memory" in text.lower():
        return "", f"not enough memory ({type(root).__name__}: {text[:200]}); use a smaller window or another device"
    if isinstance(root, OSError):
        return str(root.filename or ""), f"{type(root).__name__}: {root.strerror or text}"
    return "", f"{type(root).__name__}: {text[:500]}"


def failure_text(case_id: str, error: BaseException) -> str:
    """:func:`failure_of` as one sentence that names the case."""
    file, reason = failure_of(error)
    return f"case {case_id}: {file}: {reason}" if file else f"case {case_id}: {reason}"


def study_files(study: Study, known: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Modality -> file, channel and stamp of the images of ``study``.

    Args:
        study: the study.
        known: what this function gave before; hashes of unchanged files are taken over.

    Raises:
        OSError: a file cannot be read.
    """
    stamps: dict[str, dict[str, Any]] = {}  # several modalities may share a 4-D file
    files = {}
    for name, source in study.images.items():
        path = str(source.path)
        if path not in stamps:
            before = (known or {}).get(name) or {}
            stamps[path] = file_stamp(path, before if before.get("file") == path else None)
        files[name] = {"file": path, "channel": source.channel, **stamps[path]}
    return files


def study_origin(study: Study) -> dict[str, Any]:
    """What a result has to say about ``study``: its files, its edition and the label values of that."""
    edition = get_edition(study.edition)
    return {
        "inputs": study_files(study),
        "edition": edition.name,
        "edition_known": edition.name not in UNKNOWN_EDITIONS,
        "label_values": {str(index): value for index, value in sorted(edition.disk_values.items())},
    }


class StudyDataset(Dataset[dict[str, Any]]):
    """Load studies; an unusable one becomes ``{"case_id": ..., "error": message}`` instead of ending the run.

    A sample of a study on disk also holds ``origin``: :func:`study_origin` as JSON text, taken before it is read.

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
            study = record.get("study")
            origin = {ORIGIN: json.dumps(study_origin(study))} if isinstance(study, Study) else {}
            return {**self.transform(dict(record)), **origin}
        except Exception as error:
            return {"case_id": record["case_id"], ERROR: failure_text(str(record["case_id"]), error)}
