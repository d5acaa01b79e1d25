"""Making a split: folds and availability together."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmap_monai.data.make_split import make_split, read_strata
from medmap_monai.modalities import BRATS

CASES = [f"c{i:03d}" for i in range(80)]
RATES = {"t1": 0.2, "t1ce": 0.4, "flair": 0.6, "t2": 0.8}


def test_rates_apply_to_the_training_fold_only() -> None:
    rows = make_split(CASES, BRATS, RATES, val=10, test=20, seed=4)
    assert [row.fold for row in rows] == ["train"] * 50 + ["val"] * 10 + ["test"] * 20
    assert all((row.available is None) == (row.fold != "train") for row in rows)
    assert all(row.rates == (RATES if row.fold == "train" else {}) and row.seed == 4 for row in rows)
    assert {row.case_id for row in rows} == set(CASES)
    # names in channel order, whatever the order of the rates
    assert all(row.available == BRATS.select(BRATS.mask(row.available)) for row in rows if row.available)


def test_order_of_cases_does_not_matter() -> None:
    rows = make_split(CASES, BRATS, RATES, val=0.1, seed=4)
    assert make_split(CASES[::-1], BRATS, RATES, val=0.1, seed=4) == rows
    assert make_split(CASES, BRATS, RATES, val=0.1, seed=5) != rows


def test_without_rates_nothing_is_withheld() -> None:
    assert all(row.available is None for row in make_split(CASES, BRATS, val=3))


def test_modalities_without_a_rate_are_never_missing() -> None:
    rows = make_split(CASES, BRATS, {"t2": 0.5})
    assert all(row.available and set(row.available) >= {"flair", "t1ce", "t1"} for row in rows)


def test_withhold_from_other_folds() -> None:
    rows = make_split(CASES, BRATS, RATES, val=30, withhold_from=("train", "val"))
    assert all(row.available for row in rows)
    with pytest.raises(ValueError, match=r"\['tune'\].*train, val, test"):
        make_split(CASES, BRATS, RATES, withhold_from=("tune",))


def test_unknown_modality() -> None:
    with pytest.raises(ValueError, match=r"\['dwi'\]"):
        make_split(CASES, BRATS, {"dwi": 0.5})


def test_strata_file(tmp_path: Path) -> None:
    path = tmp_path / "name_mapping.csv"
    path.write_text("Grade,BraTS_2020_subject_ID\nHGG,a\nLGG,b\n")
    assert read_strata(path, "BraTS_2020_subject_ID", "Grade") == {"a": "HGG", "b": "LGG"}
    with pytest.raises(ValueError, match=r"no column 'case_id'.*Grade"):
        read_strata(path)
    with pytest.raises(FileNotFoundError, match="gone"):
        read_strata(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case_id,stratum\na,HGG\nb,\n", r"s\.csv, line 3: column 'stratum' is empty; every case needs"),
        ("case_id,stratum\na,HGG\n,LGG\n", r"s\.csv, line 3: column 'case_id' is empty"),
        ("case_id,stratum\na,HGG\na,LGG\n", r"line 3: case a is 'LGG' here and 'HGG' above; keep one row"),
        (
            "case_id,stratum\na,HGG\nb\n",
            r"s\.csv, line 3: 2 cells expected, one per column \(case_id, st",
        ),
        ("id,stratum\na,HGG\n", r"no column 'case_id'; it has \['id', 'stratum'\]; name the two with --strata-columns"),
        ("case_id,stratum\n", "lists no case"),
    ],
)
def test_bad_strata_name_file_line_column_and_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_strata(tmp_path / "s.csv")
