"""JSON as people like to read it: what fits on a line stays on one."""

from __future__ import annotations

import json
from typing import Any

_WIDTH = 100
_INDENT = 4


def json_text(value: Any) -> str:
    """``value`` as JSON with a line break at the end; objects and lists are broken up where they exceed 100 columns.

    Example:
        >>> print(json_text({"roi_size": [80, 80, 80]}), end="")
        {
            "roi_size": [80, 80, 80]
        }
    """
    return _broken(value, 0) + "\n" if isinstance(value, dict | list) and value else json.dumps(value) + "\n"


def _text(value: Any, depth: int, before: int) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    fits = depth * _INDENT + before + len(flat) <= _WIDTH
    return flat if fits or not isinstance(value, dict | list) or not value else _broken(value, depth)


def _broken(value: dict[str, Any] | list[Any], depth: int) -> str:
    if isinstance(value, dict):
        keys = [json.dumps(key, ensure_ascii=False) + ": " for key in value]
        items = [key + _text(item, depth + 1, len(key)) for key, item in zip(keys, value.values(), strict=True)]
        opening, closing = "{", "}"
    else:
        items = [_text(item, depth + 1, 0) for item in value]
        opening, closing = "[", "]"
    margin = " " * (_INDENT * (depth + 1))
    return f"{opening}\n{margin}" + f",\n{margin}".join(items) + f"\n{' ' * (_INDENT * depth)}{closing}"
