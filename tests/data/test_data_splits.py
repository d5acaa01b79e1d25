"""The split files in the repository: complete, sound, and what their script makes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medmap_monai.data.editions import get_edition
from medmap_monai.data.splits import rates_of_combination, read_split

ROOT = Path(__file__).parents[2] / "data_splits"
BRATS2020 = ("2468", "1379", "2258", "2285", "5528", "5582", "8825", "8852")
MYOPS = ("357", "375", "537", "573", "735", "753")
SIZES = {
    "brats2018": {"train": 199, "val": 29, "test": 57},
    "brats2020": {"train": 219, "val": 50, "test": 100},
    "brats2023": {"train": 875, "val": 125, "test": 251},
    "myops2020": {"train": 20, "test": 5},
}
FILES = [
    *(("brats2018", f"mr{name}_fold{fold}", name) for name in ("2468", "1379") for fold in (1, 2, 3)),
    *(("brats2020", f"mr{name}", name) for name in BRATS2020),
    *(("brats2023", f"mr{name}", name) for name in ("2468", "1379")),
    *(("myops2020", f"mr{name}", name) for name in MYOPS),
]


def test_nothing_else_lies_there() -> None:
    expected = {f"{edition}/{stem}.{ending}" for edition, stem, _ in FILES for ending in ("csv", "json")}
    expected |= {"README.md", "make.sh", "brats2020/cases.txt", "myops2020/cases.txt"}
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()} == expected


@pytest.mark.parametrize(("edition", "stem", "combination"), FILES)
def test_file_is_sound(edition: str, stem: str, combination: str) -> None:
    modalities = get_edition(edition).modalities
    rows = read_split(ROOT / edition / f"{stem}.csv", modalities)
    assert rows == read_split(ROOT / edition / f"{stem}.json", modalities)
    assert Counter(row.fold for row in rows) == SIZES[edition]
    rates = rates_of_combination(combination, edition)
    train = [row for row in rows if row.fold == "train"]
    assert all(row.available and row.rates == rates for row in train)
    assert len({row.available for row in train}) == 2 ** len(modalities) - 1  # every subset occurs
    assert all(row.available is None for row in rows if row.fold != "train")
    for name, rate in rates.items():
        missing = sum(name not in (row.available or ()) for row in train) / len(train)
        assert rate - 0.15 < missing < rate + 0.05


def test_combinations_of_one_edition_share_their_folds() -> None:
    folds = [{row.case_id: row.fold for row in read_split(ROOT / "brats2020" / f"mr{name}.csv")} for name in BRATS2020]
    assert all(fold == folds[0] for fold in folds)
