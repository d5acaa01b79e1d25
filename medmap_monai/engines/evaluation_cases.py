"""The cases of one evaluation in their order, and what is known about them as a whole."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import get_edition
from medmap_monai.data.evaluation_records import EvaluationRecords
from medmap_monai.data.study_dataset import ERROR
from medmap_monai.data.training_cases import UNKNOWN, describe_folds, read_training_cases
from medmap_monai.engines.evaluation_samples import EvaluationSamples
from medmap_monai.modalities import Modalities

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationCases:
    """Records sorted by case id, and what they are.

    Args:
        records: ``{"case_id", "study", ...}``, each case once.
        name: what the data are, and whether the weights have seen them.
        synthetic: whether they are computed.
        folds: fold -> number of cases.
    """

    records: list[Mapping[str, Any]]
    name: str
    synthetic: bool
    folds: dict[str, int]

    @classmethod
    def read(cls, samples: EvaluationSamples, checkpoint: str | os.PathLike[str] | None) -> EvaluationCases:
        """The cases of ``samples``; which of them ``checkpoint`` was trained on is told in a warning and in the name.

        Raises:
            ValueError: no case, or a case id that occurs twice.
        """
        data = samples.data
        records: list[Mapping[str, Any]]
        described: dict[str, Any] = {}
        synthetic = samples.synthetic
        if isinstance(data, EvaluationRecords):
            records = list(data(None if checkpoint is None else read_training_cases(checkpoint)))
            described = data.describe(records)
            # a cohort says itself whether it is synthetic; a configuration for phantoms may be used on patients
            synthetic = bool(described.get("synthetic"))
        else:
            records = list(samples.records)
        if not records:
            raise ValueError("there is no case to evaluate")
        records.sort(key=lambda record: str(record["case_id"]))
        names = [str(record["case_id"]) for record in records]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"case ids must be unique; these occur more than once: {twice[:5]}")
        of_records = [str(record.get("fold", UNKNOWN)) for record in records]
        folds = {fold: of_records.count(fold) for fold in sorted(set(of_records))}
        seen = describe_folds(of_records)
        if isinstance(data, EvaluationRecords) and seen:
            _log.warning("%s%s", seen[0].upper(), seen[1:])
        name = samples.name or described.get("name", "")
        if any(fold in folds for fold in ("train", "val")):
            name = f"{name} ({seen})".strip()
        return cls(records, name, synthetic, folds)

    @property
    def names(self) -> list[str]:
        """Case ids in order."""
        return [str(record["case_id"]) for record in self.records]

    def edition(self) -> Edition:
        """The edition that the studies name.

        Raises:
            ValueError: they name none, or several.
        """
        found = {str(e): e for e in (getattr(r.get("study"), "edition", None) for r in self.records) if e is not None}
        if len(found) != 1:
            raise ValueError(f"give edition or regions: the studies name {sorted(found) or 'no edition'}")
        return get_edition(next(iter(found)))

    def complete(self, modalities: Modalities) -> list[str]:
        """Case ids of the studies that have every modality."""
        return [
            str(record["case_id"])
            for record in self.records
            if ERROR not in record and set(modalities) <= set(getattr(record.get("study"), "images", ()))
        ]
