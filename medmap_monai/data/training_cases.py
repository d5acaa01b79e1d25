"""Which cases weights were trained on, written beside them, so that an evaluation knows what they have not seen."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmap_monai.data.patients import patient_of_study
from medmap_monai.data.study import Study
from medmap_monai.utils.files import file_sha256, write_text

_SUFFIX = "_cases.json"
#: fold of a case that is neither in training nor in validation, and of one about which nothing is known
UNSEEN, UNKNOWN = "unseen", "unknown"


@dataclass(frozen=True)
class TrainingCases:
    """The cases of a training: case id -> patient.

    train: the weights were fitted to them.
    val: the training was watched on them, and may have been stopped or selected by them.
    """

    train: Mapping[str, str]
    val: Mapping[str, str]

    def fold_of(self, case_id: str, patient: str) -> str:
        """``train`` or ``val`` where the weights saw the case, or another case of its patient; else ``unseen``."""
        for fold, cases in (("train", self.train), ("val", self.val)):
            if case_id in cases or patient in set(cases.values()):
                return fold
        return UNSEEN


def cases_path(weights: str | os.PathLike[str]) -> Path:
    """Where the cases of ``weights`` are written: ``model_cases.json`` beside ``model.pt``."""
    path = Path(weights)
    return path.with_name(path.stem + _SUFFIX)


def training_cases_of(train: Iterable[Mapping[str, Any]], val: Iterable[Mapping[str, Any]]) -> TrainingCases | None:
    """The cases of two lists of records ``{"case_id", "study"}``; None where one does not say its case."""
    folds: list[dict[str, str]] = []
    for records in (train, val):
        cases: dict[str, str] = {}
        for record in records:
            if not isinstance(record, Mapping) or "case_id" not in record:
                return None
            study = record.get("study")
            case_id = str(record["case_id"])
            cases[case_id] = patient_of_study(study) if isinstance(study, Study) else case_id
        folds.append(cases)
    return TrainingCases(*folds)


def write_training_cases(weights: str | os.PathLike[str], cases: TrainingCases | None) -> None:
    """Write the cases of ``weights``, bound to their bytes; None removes what an earlier training left."""
    path = cases_path(weights)
    if cases is None:
        path.unlink(missing_ok=True)
        return
    content = {"format": 1, "sha256": file_sha256(weights), "train": dict(cases.train), "val": dict(cases.val)}
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_training_cases(weights: str | os.PathLike[str]) -> TrainingCases | None:
    """The cases of ``weights``; None where no file tells, or it tells of other weights."""
    try:
        content = json.loads(cases_path(weights).read_text(encoding="utf-8"))
        if content["format"] != 1 or content["sha256"] != file_sha256(weights):
            return None
        return TrainingCases(dict(content["train"]), dict(content["val"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def describe_folds(folds: Sequence[str]) -> str:
    """One sentence on whether weights have seen cases of these folds; empty where they have seen none."""
    told = [f"{folds.count(fold)} of {len(folds)} cases are {what}" for fold, what in _WHAT.items() if fold in folds]
    if UNKNOWN in folds:
        told.append("it is not known which cases the weights were trained on")
    return " and ".join(told)


_WHAT = {"train": "training cases", "val": "validation cases"}
