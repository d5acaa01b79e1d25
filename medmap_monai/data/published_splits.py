"""The split files published with PASSION (Shi et al., ACM MM 2024): their format, read and written safely."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from medmap_monai.modalities import BRATS, Modalities

PASSION_HEADER = ("data_name", "mask_id", "mask", "pos_mask_ids")
_FLAG = r"(?:np\.)?(?:True|False)_?"  # a file made with numpy 2 holds np.True_


def parse_passion(
    text: str, source: str = "split", modalities: Modalities | None = None
) -> list[tuple[str, tuple[str, ...]]]:
    """Case name and available modalities of each row of a published CSV text.

    Args:
        text: the file's content. Nothing in it is evaluated.
        source: named in errors.
        modalities: the order of the mask; the published order is FLAIR, T1ce, T1, T2.

    Raises:
        ValueError: a malformed row, or a mask that contradicts its ``mask_id`` or ``pos_mask_ids``.
    """
    order = modalities or BRATS
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"{source}, line {reader.line_num}: {error}") from error
    if not lines or tuple(lines[0][1]) != PASSION_HEADER:
        raise ValueError(f"{source}: the header must be {','.join(PASSION_HEADER)}")
    rows = []
    for line, cells in lines[1:]:
        where = f"{source}, line {line}"
        if len(cells) != len(PASSION_HEADER):
            raise ValueError(f"{where}: {len(PASSION_HEADER)} cells expected, got {len(cells)}")
        name, mask_id, mask_text, ids_text = (cell.strip() for cell in cells)
        if not re.fullmatch(rf"\[{_FLAG}(?:,\s*{_FLAG})*\]", mask_text):
            raise ValueError(f"{where}: mask must be a list of True and False, got {mask_text!r}")
        if not re.fullmatch(r"\[\d+(?:,\s*\d+)*\]", ids_text) or not re.fullmatch(r"\d+", mask_id):
            raise ValueError(
                f"{where}: mask_id must be a number and pos_mask_ids a list, got {mask_id!r}, {ids_text!r}"
            )
        mask = [word == "True" for word in re.findall("True|False", mask_text)]
        try:
            expected = subset_ids(mask, order)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if int(mask_id) != expected[0] or [int(n) for n in re.findall(r"\d+", ids_text)] != expected[1]:
            raise ValueError(
                f"{where}: mask {mask_text} over {list(order)} has mask_id {expected[0]} and pos_mask_ids "
                f"{expected[1]}, the file says {mask_id} and {ids_text}"
            )
        rows.append((name, order.select(mask)))
    return rows


def format_passion(
    cases: Sequence[str], available: Sequence[Sequence[str]], modalities: Modalities | None = None
) -> str:
    """The published CSV text (CRLF line ends included), byte for byte.

    Args:
        cases: case names.
        available: the modalities of each case.
        modalities: the order of the mask; the published order is FLAIR, T1ce, T1, T2.
    """
    order = modalities or BRATS
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(PASSION_HEADER)
    for name, names in zip(cases, available, strict=True):
        mask = list(order.mask(names))
        mask_id, below = subset_ids(mask, order)
        writer.writerow([name, mask_id, mask, below])
    return buffer.getvalue()


def subset_ids(mask: Sequence[bool], modalities: Modalities) -> tuple[int, list[int]]:
    """The id of a subset, and the sorted ids of all its non-empty subsets (itself included)."""
    subsets = modalities.subsets()
    inside = set(modalities.select(mask))
    return modalities.subset_id(mask), [i for i, subset in enumerate(subsets) if set(subset) <= inside]
