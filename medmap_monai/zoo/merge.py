"""Lay one part of a configuration over another, by the rules of MONAI's overlays and three more."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

#: stands, in a part, for the value that the parts below gave
BASE = "<base>"
#: stands for a top-level key that this bundle does not have
DROP = "<drop>"
_BEFORE = "before "


def merge_config(config: dict[str, Any], part: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> None:
    """Lay ``part`` over ``config``, in place.

    As in MONAI's overlays a value replaces the one of that key, and ``a#b#2`` reaches inside. Beyond that

    - ``"before KEY": {...}`` puts new keys in front of the top-level KEY, so that files keep a readable order;
    - ``"LIST#+2": value`` puts ``value`` into a list in front of its item 2;
    - a value ``"<drop>"`` takes a top-level key away;
    - a value ``"<base>"``, at any depth, is the value that stood there before, so that a part can wrap it, and
      ``"<NAME>"`` is the fact of that name.

    Raises:
        ValueError: a key to put something before, or on the way to a place, does not exist.
    """
    for key, value in part.items():
        if key.startswith(_BEFORE):
            _insert_before(config, key.removeprefix(_BEFORE), _filled(value, None, facts or {}))
        elif value == DROP:
            if key not in config:
                raise ValueError(f"{key!r} cannot be dropped: there are {list(config)}")
            del config[key]
        else:
            _set(config, key, value, facts or {})


def _insert_before(config: dict[str, Any], anchor: str, new: Mapping[str, Any]) -> None:
    if anchor not in config:
        raise ValueError(f"nothing can be put before {anchor!r}: there are {list(config)}")
    items = list(config.items())
    place = list(config).index(anchor)
    config.clear()
    config.update([*items[:place], *new.items(), *(item for item in items[place:] if item[0] not in new)])


def _set(config: dict[str, Any], key: str, value: Any, facts: Mapping[str, Any]) -> None:
    if key in config:  # overlays hold keys with '#' in them
        config[key] = _filled(value, config[key], facts)
        return
    holder: Any = config
    *way, last = key.split("#")
    for step in way:
        try:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"{key!r}: there is no {step!r} on the way") from None
    if isinstance(holder, list) and last.startswith("+"):
        holder.insert(int(last[1:]), _filled(value, None, facts))
    elif isinstance(holder, list):
        holder[int(last)] = _filled(value, holder[int(last)], facts)
    elif isinstance(holder, dict):
        holder[last] = _filled(value, holder.get(last), facts)
    else:
        raise ValueError(f"{key!r} leads into a {type(holder).__name__}")


def _filled(value: Any, base: Any, facts: Mapping[str, Any]) -> Any:
    """A copy of ``value`` with ``<base>`` and the names of facts replaced."""
    if value == BASE:
        return copy.deepcopy(base)
    if isinstance(value, str) and value.startswith("<") and value.endswith(">"):
        name = value[1:-1]
        if name not in facts:
            raise ValueError(f"{value!r} is no fact of this bundle; there are {sorted(facts)}")
        return copy.deepcopy(facts[name])
    if isinstance(value, Mapping):
        return {key: _filled(item, base, facts) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, base, facts) for item in value]
    return value
