"""Values that belong together, given as one object or by their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

T = TypeVar("T")


def grouped(kind: type[T], values: T | Mapping[str, Any] | None) -> T:
    """``values`` as a ``kind``, a dataclass: as given, from their names (as JSON has them), or its defaults.

    Raises:
        ValueError: a name that ``kind`` does not have; the message lists those it has.
    """
    if isinstance(values, kind):
        return values
    given = dict(cast("Mapping[str, Any]", values or {}))
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown)}; allowed are {known}")
    return kind(**given)
