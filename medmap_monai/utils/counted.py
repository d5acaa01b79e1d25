"""Counts in sentences: 1 study, 2 studies."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """``number`` and what is counted.

    Args:
        number: how many.
        one: what one of them is called, such as ``study``, or how the sentence goes on (``file is``).
        many: the same for any other number; empty: ``one`` with the usual ending.

    Example:
        >>> counted(1, "study"), counted(0, "study"), counted(1234, "case"), counted(2, "file is", "files are")
        ('1 study', '0 studies', '1234 cases', '2 files are')
    """
    if number == 1:
        return f"1 {one}"
    return f"{number} {many or (one[:-1] + 'ies' if one.endswith('dy') else one + 's')}"


def are(number: int) -> str:
    """The verb that goes with ``number``: is, are."""
    return "is" if number == 1 else "are"
