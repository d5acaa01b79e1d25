"""What the deterministic part of a pipeline was built from, kept on the pipeline itself."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from monai.transforms import Compose

from medmap_monai.data.case_store import SETTINGS
from medmap_monai.utils.files import file_sha256


def says_settings(random: Sequence[str]) -> Callable[[Callable[..., Compose]], Callable[..., Compose]]:
    """Let the pipelines that a function builds carry its arguments, those named ``random`` apart, by which
    :class:`~medmap_monai.data.case_store.CaseStore` tells what their deterministic part was built from."""

    def decorate(build: Callable[..., Compose]) -> Callable[..., Compose]:
        signature = inspect.signature(build)

        @wraps(build)
        def build_and_say(*args: Any, **kwargs: Any) -> Compose:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            pipeline = build(*args, **kwargs)
            settings = {name: _plain(value) for name, value in bound.arguments.items() if name not in random}
            setattr(pipeline, SETTINGS, {"pipeline": build.__name__, **settings})
            return pipeline

        return build_and_say

    return decorate


def _plain(value: Any) -> Any:
    """A setting as JSON; of a file its content counts, not its name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (str, os.PathLike)) and Path(value).is_file():
        return {"sha256": file_sha256(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)
