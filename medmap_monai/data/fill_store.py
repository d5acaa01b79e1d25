"""Fill a store of preprocessed cases, in several processes."""

from __future__ import annotations

from typing import NamedTuple

from monai.data import DataLoader
from monai.data.utils import no_collation
from torch.utils.data import Dataset

from medmap_monai.data.seeded_dataset import SeededCacheDataset
from medmap_monai.data.study_dataset import find_study_error


class Filled(NamedTuple):
    """written, found: numbers of cases. failures: reason by case id."""

    written: int
    found: int
    failures: dict[str, str]


class _Cases(Dataset[tuple[str, str, str]]):
    """Item i puts case i into the store and says what happened: (case id, outcome, reason)."""

    def __init__(self, dataset: SeededCacheDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.data)

    def __getitem__(self, index: int) -> tuple[str, str, str]:
        record, store = self.dataset.data[index], self.dataset.store
        assert store is not None
        if store.has(record):
            return str(record["case_id"]), "found", ""
        try:
            self.dataset.stored(index)
        except Exception as error:
            return str(record["case_id"]), "failed", str(find_study_error(error) or error)
        if not store.has(record):
            return str(record["case_id"]), "failed", f"could not be written to {store.folder}"
        return str(record["case_id"]), "written", ""


def fill_store(dataset: SeededCacheDataset, workers: int = 0) -> Filled:
    """Put every case of ``dataset`` into its store; one that fails is reported, and the others are done.

    Raises:
        ValueError: the data set has no store, or no cases.
    """
    if dataset.store is None:
        raise ValueError("this configuration has no store: store_dir is null")
    if not len(dataset.data):
        raise ValueError("there are no training cases: check dataset_dir, split_file and the fold sizes")
    outcomes = [o for batch in DataLoader(_Cases(dataset), num_workers=workers, collate_fn=no_collation) for o in batch]
    counts = {kind: sum(outcome == kind for _, outcome, _ in outcomes) for kind in ("written", "found")}
    return Filled(**counts, failures={case: reason for case, outcome, reason in outcomes if outcome == "failed"})
