"""The numbers from which synthetic studies are drawn: one readable table, and tables that inherit from it."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent
_FILES = {"default": "priors.yaml", "wide": "priors_wide.yaml", "shifted": "priors_shifted.yaml"}
BUILT_IN = {name: _HERE / file for name, file in _FILES.items()}


def load_priors(source: str | os.PathLike[str] | Mapping[str, Any] = "default") -> dict[str, Any]:
    """A table of priors: a built-in name (``default``, ``wide``, ``shifted``), a YAML file, or the table itself.

    A file with ``inherits: OTHER`` holds only what differs from OTHER, a built-in name or a file beside it. Where it
    gives no ``name`` it is called as the file is, followed by a fingerprint of its numbers.

    Raises:
        FileNotFoundError: neither a built-in name nor a file.
        ValueError: a key that the table it inherits from does not know, no table, or one that inherits from itself.
    """
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source))
    return _load(source, ())


def _load(source: str | os.PathLike[str], heirs: tuple[Path, ...]) -> dict[str, Any]:
    path = BUILT_IN.get(str(source), Path(source))
    if not path.is_file():
        raise FileNotFoundError(f"no priors {str(source)!r}: neither a file nor one of {sorted(BUILT_IN)}")
    if path.resolve() in heirs:
        raise ValueError(f"{path} inherits from itself")
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path} holds no table of priors")
    parent = table.pop("inherits", None)
    if parent is None:
        return table
    origin = str(parent) if str(parent) in BUILT_IN else path.parent / str(parent)
    merged = _merged(_load(origin, (*heirs, path.resolve())), table, str(path), "")
    if "name" not in table:  # else what it inherits from would be named as the source of what is drawn
        content = json.dumps(
            {key: value for key, value in merged.items() if key != "name"}, sort_keys=True, default=str
        )
        merged["name"] = f"{path.stem} {hashlib.sha256(content.encode()).hexdigest()[:8]}"
    return merged


def _merged(base: dict[str, Any], changes: Mapping[str, Any], path: str, prefix: str) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        if key not in base:
            raise ValueError(f"{path}: unknown prior {prefix}{key}; there are {sorted(base)}")
        if isinstance(base[key], Mapping) != isinstance(value, Mapping):
            raise ValueError(
                f"{path}: {prefix}{key} must be {'a table' if isinstance(base[key], Mapping) else 'a value'}"
            )
        result[key] = _merged(base[key], value, path, f"{prefix}{key}.") if isinstance(value, Mapping) else value
    return result
