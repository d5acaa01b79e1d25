"""Make a split: folds by case, and the modalities that each training case is granted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from medmap_monai.data.availability import draw_availability
from medmap_monai.data.folds import assign_folds
from medmap_monai.data.splits import FOLDS, SplitRow
from medmap_monai.modalities import Modalities
from medmap_monai.utils.csv_rows import read_csv_rows, read_text


def make_split(
    cases: Sequence[str],
    modalities: Modalities,
    rates: Mapping[str, float] | None = None,
    val: float = 0,
    test: float = 0,
    train: float | None = None,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
    allocation: str = "expected",
    withhold_from: Sequence[str] = ("train",),
    patients: Mapping[str, str] | None = None,
) -> list[SplitRow]:
    """Split rows sorted by fold (train, val, test) and case id.

    Args:
        cases: case ids; their order does not matter.
        modalities: the task's modalities.
        rates: missing rate per modality, in the order of drawing (modalities without one are never missing). None:
            nothing is withheld.
        val, test, train, strata, patients: see :func:`~medmap_monai.data.folds.assign_folds`.
        seed: of the folds and of the draw.
        allocation: see :func:`~medmap_monai.data.availability.draw_availability`.
        withhold_from: folds to which the rates apply; cases of the others may use whatever they have.

    Raises:
        ValueError: as the two functions; or a rate for an unknown modality.
    """
    unknown = sorted(set(withhold_from) - set(FOLDS))
    if unknown:
        raise ValueError(f"folds {unknown} are unknown; allowed are {', '.join(FOLDS)}")
    folds = assign_folds(cases, val, test, train, seed, strata, patients)
    full_rates = {}
    if rates is not None:
        modalities.mask(rates)  # an error that names what is unknown
        full_rates = {name: float(rates.get(name, 0.0)) for name in [*rates, *modalities]}
    rows: list[SplitRow] = []

    def group(case: str) -> str | None:
        return (patients or {}).get(case)

    for fold in FOLDS:
        members = sorted(case for case, its_fold in folds.items() if its_fold == fold)
        if not members:
            continue
        if not full_rates or fold not in withhold_from:
            rows.extend(SplitRow(case, fold, None, seed, group=group(case)) for case in members)
            continue
        for case, names in zip(members, draw_availability(len(members), full_rates, seed, allocation), strict=True):
            rows.append(SplitRow(case, fold, modalities.select(modalities.mask(names)), seed, full_rates, group(case)))
    return rows


def read_strata(
    path: str | os.PathLike[str], case_column: str = "case_id", stratum_column: str = "stratum"
) -> dict[str, str]:
    """Case id -> stratum from two columns of a CSV file, such as BraTS 2020's ``name_mapping.csv`` (grade).

    Raises:
        FileNotFoundError: no such file.
        ValueError: names file, line and column, and what to do: a column is absent (those that exist are listed), a
            cell is empty, or a case has two strata.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"strata file {source} does not exist")
    strata: dict[str, str] = {}
    for line, row in read_csv_rows(source, "strata file", read_text(source, "strata file")):
        where = f"strata file {source}, line {line}"
        for column in (case_column, stratum_column):
            if column not in row:
                raise ValueError(
                    f"strata file {source} has no column {column!r}; it has {list(row)}; name the two with "
                    "--strata-columns CASE,STRATUM"
                )
            if not row[column]:
                raise ValueError(f"{where}: column {column!r} is empty; every case needs a name and a stratum")
        case_id, stratum = row[case_column], row[stratum_column]
        if strata.setdefault(case_id, stratum) != stratum:
            raise ValueError(f"{where}: case {case_id} is {stratum!r} here and {strata[case_id]!r} above; keep one row")
    if not strata:
        raise ValueError(f"strata file {source} lists no case")
    return strata
