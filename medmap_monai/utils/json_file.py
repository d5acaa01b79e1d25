"""Read JSON, of people and our own; what is none is one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def parse_json(text: str | bytes, name: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The content of ``text``.

    Args:
        text: UTF-8, with or without a byte order mark.
        name: what it is, for the message, such as ``manifest /data/m.json``.
        pairs: what makes an object of its keys and values; see ``object_pairs_hook`` of ``json.loads``.

    Raises:
        ValueError: it is no JSON, no text, or nested so deeply that nobody wrote it.
    """
    try:
        plain = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        return json.loads(plain, object_pairs_hook=pairs)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{name} is not valid JSON that can be read: it is nested too deeply") from error


def read_json(path: Path, what: str = "", remedy: str = "") -> Any:
    """The content of a file.

    Args:
        path: the file.
        what: what it is; stands before its path in the message.
        remedy: what to do about one that is damaged; ends the message.

    Raises:
        ValueError: as :func:`parse_json`.
        OSError: it cannot be read.
    """
    try:
        return parse_json(path.read_bytes(), f"{what} {path}".strip())
    except ValueError as error:
        if not remedy:
            raise
        raise ValueError(f"{error}; {remedy}") from error


def read_own_record(path: Path) -> dict[str, Any] | None:
    """The object in a file that this package wrote; None where there is none, or it holds anything else.

    For what may be lost without harm: whoever reads it goes on as if nothing had been written.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
