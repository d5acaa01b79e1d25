"""Read CSV files of people; every fault is one line that names file, row, column and what to do."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path


def read_text(source: Path, what: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is no UTF-8 text.
        OSError: it cannot be read.
    """
    try:
        return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{what} {source} is no UTF-8 text (byte {error.start}); save it from the spreadsheet as 'CSV UTF-8'"
        ) from error


def read_csv_rows(source: Path, what: str, text: str, delimiters: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by column, stripped, of every row.

    Args:
        source: the file, for messages.
        what: what the file is, such as ``manifest``.
        text: its content.
        delimiters: of these the one that the header has most often.

    Raises:
        ValueError: no header, a column without a name or twice, a row of another length, or what is no CSV.
    """
    delimiter = max(delimiters, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise ValueError(
                f"{what} {source}, line {reader.line_num}: {error}; a quotation mark that is not closed, or no CSV"
            ) from error
        if not cells:
            continue
        cells = [cell.strip() for cell in cells]
        if header is None:
            header = cells
            _check_header(header, source, what)
        elif len(cells) != len(header):
            raise ValueError(
                f"{what} {source}, line {reader.line_num}: {len(header)} cells expected, one per column "
                f"({', '.join(header)}), got {len(cells)}; an absent value is an empty cell"
            )
        else:
            yield reader.line_num, dict(zip(header, cells, strict=True))
    if header is None:
        raise ValueError(f"{what} {source} is empty; its first line must name the columns")


def _check_header(header: list[str], source: Path, what: str) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        fault = f"the column {twice[0]!r} twice" if twice and twice[0] else "a column without a name"
        raise ValueError(f"{what} {source}: the first line has {fault}; it must name every column once: {header}")
