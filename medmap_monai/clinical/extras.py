"""Packages that only some steps need: imported when used, with an error that names the extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class ExtraNeededError(ImportError):
    """An optional package is not installed; the message says how to get it."""


def need(module: str, extra: str, what: str) -> Any:
    """Import ``module``.

    Args:
        module: dotted name.
        extra: the extra of medmap-monai that installs it.
        what: what needs it, to begin the message with.

    Raises:
        ExtraNeededError: it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ExtraNeededError(
            f"{what} needs the extra {extra!r} (pip install 'medmap-monai[{extra}]'): {error}"
        ) from error
