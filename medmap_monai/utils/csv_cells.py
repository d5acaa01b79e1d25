"""Cells of CSV files that a spreadsheet shows as text and never runs as a formula."""

from __future__ import annotations

import re
from collections.abc import Iterable

# what spreadsheets take for the start of a formula (OWASP, "CSV Injection"), behind any number of quotes
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def quoted_cell(value: object) -> str:
    """``value`` as a cell: text that a spreadsheet would compute gets a ``'`` in front, numbers stay numbers.

    Example:
        >>> quoted_cell("=1+1"), quoted_cell("-2.5"), quoted_cell("case_1")
        ("'=1+1", '-2.5', 'case_1')
    """
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def plain_cell(text: str) -> str:
    """The text that :func:`quoted_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def quoted_row(values: Iterable[object]) -> list[str]:
    """:func:`quoted_cell` of every value."""
    return [quoted_cell(value) for value in values]
