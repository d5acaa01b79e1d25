"""What an object was configured with, as JSON values: two objects of the same description do the same."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

#: where a computation runs and what it shows changes no result; random states belong to no deterministic part
_NO_EFFECT = frozenset(
    {
        *("R", "device", "sw_device", "sw_batch_size", "buffer_steps", "buffer_dim", "cpu_thresh", "memory_limit"),
        *("progress", "output_dir", "roi_weight_map", "num_workers", "automatic"),
    }
)
_DEEPEST = 8


def describe(value: Any, depth: int = 0) -> Any:
    """``value`` as JSON values: its class and everything that it was configured with, nested objects likewise.

    Settings that only say where or how fast something runs are left out, and so is what has no stable form
    (a function is its name, a network its class).
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum | torch.dtype | Path | np.dtype):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | torch.Tensor):
        return np.asarray(value).tolist() if np.asarray(value).size <= 64 else list(value.shape)
    if depth >= _DEEPEST:
        return _name(type(value))
    if isinstance(value, Mapping):
        return {str(key): describe(item, depth + 1) for key, item in sorted(value.items(), key=lambda i: str(i[0]))}
    if isinstance(value, list | tuple):
        return [describe(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(describe(item, depth + 1)) for item in value)
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return _name(value if isinstance(value, type) else type(value))
    if isinstance(value, nn.Module):
        return _name(type(value))
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    settings = {name: describe(item, depth + 1) for name, item in sorted(vars(value).items()) if name not in _NO_EFFECT}
    return {"class": _name(type(value)), **settings}


def description_sha256(value: Any) -> str:
    """SHA-256 of the description of ``value``, in hexadecimal."""
    return hashlib.sha256(json.dumps(describe(value), sort_keys=True).encode("utf-8")).hexdigest()


def _name(found: type) -> str:
    return f"{found.__module__}.{found.__qualname__}"
