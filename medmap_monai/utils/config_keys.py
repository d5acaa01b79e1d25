"""Whether the keys that overlays and arguments set exist: a misspelt one would otherwise pass without effect."""

from __future__ import annotations

import difflib
import inspect
import pydoc
import re
from collections.abc import Iterable, Mapping
from typing import Any

from monai.bundle import ComponentLocator

#: what MONAI itself looks for in a configuration
_MONAI_KEYS = frozenset({"imports", "initialize", "finalize", "run", "_meta_"})
_REFERENCE = re.compile(r"[@%](\w+)")


def require_known_key(config: Mapping[str, Any], key: str, where: str) -> None:
    """Raise unless ``key`` names a value of ``config`` that setting it can change.

    A nested id (``network_def#channels``, or with ``::``) may also be an argument, not yet given, of the component
    that it belongs to.

    Args:
        config: the merged configuration, before it is parsed.
        key: config id.
        where: what set it, for the message.

    Raises:
        ValueError: for an unknown key; lists the known ones, near misses first.
    """
    node: Any = config
    parts = key.replace("::", "#").split("#")
    for depth, part in enumerate(parts):
        above = "#".join(parts[:depth])
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                raise _unknown(key, where, [f"{above}#{i}" for i in range(len(node))])
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, Mapping) and depth == len(parts) - 1 and "_target_" in node and part not in ("", "_"):
            allowed = _arguments(node["_target_"])
            if allowed is not None and part not in allowed:
                raise _unknown(key, where, [f"{above}#{name}" for name in sorted(allowed)])
            return
        elif isinstance(node, Mapping):
            known = [name for name in node if not name.startswith("_")]
            raise _unknown(key, where, [f"{above}#{name}" if above else name for name in known])
        else:
            raise _unknown(key, where, [above])


def require_known_overlay(
    overlay: Mapping[str, Any], base: Mapping[str, Any], merged: Mapping[str, Any], others: Iterable[str], where: str
) -> None:
    """Raise for a top-level key of ``overlay`` that nothing reads.

    Known are the keys of ``base``, what the merged configuration refers to, and ``others``: keys of the bundle's other
    configurations, since one overlay may serve all of them.

    Args:
        overlay: content of the overlay's file.
        base: the configuration under it.
        merged: both.
        others: top-level keys of the bundle's other configurations.
        where: the file, for the message.

    Raises:
        ValueError: names the key and the known ones.
    """
    known = set(base) | set(others) | _MONAI_KEYS | set(_references(merged))
    for key in overlay:
        name = key.removeprefix("+")
        if name.replace("::", "#").split("#")[0] not in known and not name.startswith("_"):
            raise _unknown(name, where, sorted(base))


def _references(config: Any) -> Iterable[str]:
    if isinstance(config, Mapping):
        for value in config.values():
            yield from _references(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _references(value)
    elif isinstance(config, str):
        yield from _REFERENCE.findall(config)


def _arguments(target: Any) -> set[str] | None:
    """Names of a component's arguments; None where they are not known (any may be meant)."""
    if not isinstance(target, str):
        return None
    found = pydoc.locate(target) if "." in target else ComponentLocator().get_component_module_name(target)
    if isinstance(found, str):  # a short name of MONAI: its module
        found = pydoc.locate(f"{found}.{target}")
    if not callable(found):
        return None
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters if p.name != "self"} | {"_disabled_", "_requires_", "_mode_", "_desc_"}


def _unknown(key: str, where: str, known: list[str]) -> ValueError:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return ValueError(f"{where}: unknown key {key!r}; {hint}known are {', '.join(known)}")
