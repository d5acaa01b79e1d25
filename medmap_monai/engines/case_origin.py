"""What the scores of a case are computed from, and whether that has changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any

from medmap_monai.data.study import Study
from medmap_monai.data.study_dataset import study_files
from medmap_monai.engines.results_store import ResultsStore
from medmap_monai.utils.describe import description_sha256
from medmap_monai.utils.file_stamp import file_stamp

LABEL = "label"


def case_origin(
    study: Study,
    preprocessing: Callable[..., Any],
    before: Mapping[str, Any] | None = None,
    available: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Images and label of ``study`` with their hashes, what of them a split withholds, and a hash of the preprocessing.

    Args:
        study: the study.
        preprocessing: record -> sample; a plain function says nothing about itself.
        before: an earlier origin; hashes of unchanged files are taken over.
        available: modalities that the split grants; None: all.

    Raises:
        OSError: a file cannot be read.
    """
    known = (before or {}).get("files") or {}
    files = study_files(study, known)
    if study.label is not None:
        old = known.get(LABEL) or {}
        path = str(study.label)
        files[LABEL] = {"file": path, **file_stamp(path, old if old.get("file") == path else None)}
    described = "" if isinstance(preprocessing, FunctionType) else description_sha256(preprocessing)
    withheld = [] if available is None else sorted(set(study.images) - set(available))
    return {"preprocessing": described, **({"withheld": withheld} if withheld else {}), "files": files}


def forget_changed(
    store: ResultsStore, records: Sequence[Mapping[str, Any]], preprocessing: Callable[..., Any]
) -> list[str]:
    """Drop finished cases whose files, preprocessing or granted modalities are others now; their names are returned."""
    again = []
    for record in records:
        case_id, study = str(record["case_id"]), record.get("study")
        if not isinstance(study, Study) or not store.finished(case_id):
            continue
        before = store.read_origin(case_id)
        try:
            now = case_origin(study, preprocessing, before, record.get("available"))
            same = _content(before) == _content(now)
        except OSError:
            same = False  # told when it is read
        if not same:
            store.forget(case_id)
            again.append(case_id)
    return again


def _content(origin: Mapping[str, Any]) -> dict[str, Any]:
    """What of an origin decides about the scores: not where the files lie, nor when they were written."""
    files = {name: (file.get("sha256"), file.get("channel")) for name, file in (origin.get("files") or {}).items()}
    return {"preprocessing": origin.get("preprocessing"), "withheld": origin.get("withheld") or [], **files}
