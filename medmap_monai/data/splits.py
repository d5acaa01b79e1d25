"""Split files: which fold each case is in, and which of its modalities it is granted."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import get_edition
from medmap_monai.data.patients import GROUP
from medmap_monai.data.published_splits import PASSION_HEADER, parse_passion
from medmap_monai.modalities import SUBSET_SEPARATOR, Modalities
from medmap_monai.utils.counted import counted
from medmap_monai.utils.csv_cells import plain_cell, quoted_row
from medmap_monai.utils.csv_rows import read_csv_rows, read_text
from medmap_monai.utils.files import write_text
from medmap_monai.utils.json_file import parse_json

FOLDS = ("train", "val", "test")
HEADER = ("case_id", "fold", "available", "seed", "rates")
_COLUMNS = (*HEADER, GROUP)


@dataclass(frozen=True)
class SplitRow:
    """One case of a split.

    case_id: the case.
    fold: ``train``, ``val`` or ``test``.
    available: the modalities the case may use, never empty; None grants whatever exists.
    seed: what the row was drawn with, when it was drawn.
    rates: the nominal missing rate per modality that ``available`` was drawn with.
    group: the patient, where it is not the case itself.
    """

    case_id: str
    fold: str = "train"
    available: tuple[str, ...] | None = None
    seed: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    group: str | None = None

    def __post_init__(self) -> None:
        if not self.case_id:
            raise ValueError("a split row needs a case id, got an empty one")
        if self.fold not in FOLDS:
            raise ValueError(f"case {self.case_id}: fold {self.fold!r} is unknown; allowed are {', '.join(FOLDS)}")
        if self.available is not None and not self.available:
            raise ValueError(f"case {self.case_id}: at least one modality must be available")


def read_split(path: str | os.PathLike[str], modalities: Modalities | None = None) -> list[SplitRow]:
    """Read a split file: this project's CSV or JSON, a published PASSION CSV, or a plain text list of cases.

    A PASSION file and a text list hold one fold and do not name it; their rows are ``train``.

    Args:
        path: the file.
        modalities: names that may occur; in a PASSION file they are the mask's order (default: the published
            FLAIR, T1ce, T1, T2).

    Raises:
        FileNotFoundError: no such file.
        ValueError: names file and line, what was got and what is allowed.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"split file {source} does not exist")
    try:
        text = source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"split file {source} is not text ({error})") from error
    if source.suffix == ".json":
        rows = _from_json(source, text)
    elif source.suffix == ".txt":
        rows = [SplitRow(name) for name in read_case_list(source)]
    elif text.splitlines()[:1] == [",".join(PASSION_HEADER)]:
        rows = [SplitRow(name, "train", available) for name, available in parse_passion(text, str(source), modalities)]
    else:
        rows = _from_csv(source, text)
    if not rows:
        raise ValueError(f"split file {source} lists no case")
    seen: set[str] = set()
    for row in rows:
        if row.case_id in seen:
            raise ValueError(f"split file {source}: case {row.case_id} is listed twice")
        seen.add(row.case_id)
        unknown = set(row.available or ()) - set(modalities or row.available or ())
        if unknown:
            allowed = list(modalities or ())
            raise ValueError(f"{source}: case {row.case_id} names modalities {sorted(unknown)}; allowed are {allowed}")
    return rows


def write_split(path: str | os.PathLike[str], rows: Sequence[SplitRow]) -> None:
    """Write this project's CSV or JSON, by the ending of ``path``; both hold the same and are read by people too.

    Raises:
        ValueError: another ending, or no rows.
    """
    target = Path(path)
    if not rows:
        raise ValueError(f"split file {target}: there is no case to write")
    grouped = any(row.group not in (None, row.case_id) for row in rows)  # the column is there where it says something
    if target.suffix == ".json":
        content = [
            {
                "case_id": row.case_id,
                "fold": row.fold,
                "available": None if row.available is None else list(row.available),
                "seed": row.seed,
                "rates": dict(row.rates),
                **({GROUP: row.group or row.case_id} if grouped else {}),
            }
            for row in rows
        ]
        write_text(target, "[\n" + ",\n".join(json.dumps(item) for item in content) + "\n]\n")
    elif target.suffix == ".csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_COLUMNS if grouped else HEADER)
        for row in rows:
            available = "" if row.available is None else SUBSET_SEPARATOR.join(row.available)
            rates = " ".join(f"{name}={rate:g}" for name, rate in row.rates.items())
            cells = [row.case_id, row.fold, available, "" if row.seed is None else row.seed, rates]
            writer.writerow(quoted_row([*cells, row.group or row.case_id] if grouped else cells))
        write_text(target, buffer.getvalue())
    else:
        raise ValueError(f"split file {target}: the name must end in .csv or .json")


def read_case_list(path: str | os.PathLike[str]) -> list[str]:
    """Case names of a text file, one per line; blank lines and lines that start with ``#`` are skipped."""
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"case list {source} does not exist")
    lines = [line.strip() for line in read_text(source, "case list").splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"case list {source} repeats {', '.join(repeated[:5])}")
    if not names:
        raise ValueError(f"case list {source} is empty")
    return names


def match_case(name: str, known: set[str]) -> str | None:
    """The known case that a split calls ``name``; the published files prefix BraTS ids with ``HG_`` or ``LG_``."""
    if name in known:
        return name
    bare = re.sub(r"^(?:HG|LG)_", "", name)
    return bare if bare in known else None


def numbered_cases(count: int) -> list[str]:
    """``#001`` to ``#count``: cases by their place in the sorted case ids, for a split made without the names.

    Data sets whose ids follow no pattern (BraTS 2018, 2023) can thus have ready-made splits.

    Raises:
        ValueError: fewer than one case.
    """
    if count < 1:
        raise ValueError(f"at least one case is needed, got {count}")
    return [f"#{number:0{max(3, len(str(count)))}d}" for number in range(1, count + 1)]


def name_numbered_cases(rows: Sequence[SplitRow], case_ids: Sequence[str]) -> list[SplitRow]:
    """Replace ``#k`` by the k-th of the sorted ``case_ids``; rows with names stay as they are.

    Raises:
        ValueError: the split is numbered for another number of cases than there are, or mixes numbers and names.
    """
    numbered = [row for row in rows if re.fullmatch(r"#\d+", row.case_id)]
    if not numbered:
        return list(rows)
    ordered = sorted(case_ids)
    if len(numbered) != len(rows) or len(rows) != len(ordered):
        raise ValueError(
            f"a split by case number must number every case: it has {len(numbered)} numbered "
            f"of {counted(len(rows), 'row')}, the cohort has {counted(len(ordered), 'case')}"
        )
    if {int(row.case_id[1:]) for row in rows} != set(range(1, len(rows) + 1)):
        raise ValueError(f"a split by case number must have each of #1 to #{len(rows)} once")
    return [replace(row, case_id=ordered[int(row.case_id[1:]) - 1]) for row in rows]


def rates_of_combination(name: str, edition: str | Edition = "brats2020") -> dict[str, float]:
    """Missing rates of a combination name: ``2468`` is 0.2, 0.4, 0.6, 0.8 in the edition's ``rate_order``.

    For BraTS that order is T1, T1ce, FLAIR, T2, which is not the channel order; for MyoPS it is bSSFP, LGE, T2.

    Raises:
        ValueError: not one digit from 0 to 9 per modality.

    Example:
        >>> rates_of_combination("2468")
        {'t1': 0.2, 't1ce': 0.4, 'flair': 0.6, 't2': 0.8}
    """
    order = get_edition(edition).rate_order
    digits = name.removeprefix("mr")
    if not re.fullmatch(r"[0-9]+", digits) or len(digits) != len(order):
        raise ValueError(
            f"combination {name!r} must be {len(order)} digits, the missing rates x10 of {', '.join(order)} (such as "
            f"{'2468'[: len(order)]})"
        )
    return {modality: int(digit) / 10 for modality, digit in zip(order, digits, strict=True)}


def parse_rates(text: str) -> dict[str, float]:
    """``t1=0.2,t1ce=0.4`` (commas or blanks) as a dict.

    Raises:
        ValueError: not of that form, or a rate outside 0..1.
    """
    rates: dict[str, float] = {}
    for part in re.split(r"[,\s]+", text.strip()):
        found = re.fullmatch(r"([^=\s]+)=([0-9.eE+-]+)", part)
        try:
            value = float(found[2]) if found else -1.0
        except ValueError:
            value = -1.0
        if found is None or not 0 <= value <= 1:
            raise ValueError(f"missing rate {part!r} must look like t1=0.2, a rate from 0 to 1")
        rates[found[1]] = value
    return rates


def _from_csv(source: Path, text: str) -> list[SplitRow]:
    records = list(read_csv_rows(source, "split file", text))
    header = tuple(records[0][1]) if records else ()
    if records and ("case_id" not in header or not set(header) <= set(_COLUMNS)):
        raise ValueError(
            f"split file {source} has the columns {list(header)}; allowed are {list(_COLUMNS)} (case_id is needed) or "
            f"the published {list(PASSION_HEADER)}"
        )
    rows = []
    for line, record in records:
        try:
            rows.append(_row({key: plain_cell(value) for key, value in record.items()}))
        except ValueError as error:
            raise ValueError(f"split file {source}, line {line}: {error}") from error
    return rows


def _from_json(source: Path, text: str) -> list[SplitRow]:
    content = parse_json(text, f"split file {source}")
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ValueError(f"split file {source} must hold a list of cases with the keys {list(_COLUMNS)}")
    rows = []
    for number, item in enumerate(content, start=1):
        unknown = set(item) - set(_COLUMNS)
        try:
            if unknown:
                raise ValueError(f"unknown keys {sorted(unknown)}; allowed are {list(_COLUMNS)}")
            rows.append(_row(item))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{source}, case number {number}: {error}") from error
    return rows


def _row(record: Mapping[str, Any]) -> SplitRow:
    available, rates, seed = record.get("available"), record.get("rates"), record.get("seed")
    if isinstance(available, str):
        available = available.split(SUBSET_SEPARATOR) if available else None
    if isinstance(rates, str):
        rates = parse_rates(rates) if rates else {}
    return SplitRow(
        case_id=str(record.get("case_id") or ""),
        fold=record.get("fold") or "train",
        available=None if available is None else tuple(str(name) for name in available),
        seed=None if seed in (None, "") else int(seed),
        rates={str(name): float(rate) for name, rate in (rates or {}).items()},
        group=str(record.get(GROUP) or "") or None,
    )
