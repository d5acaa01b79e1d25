"""Warnings as commands show them: one plain line each, once, without a place in somebody's source."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import typer

#: what libraries tell those who call them; nothing that whoever runs a command could act on
_FOR_DEVELOPERS = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)


def show_warnings_plainly() -> None:
    """From now on a warning is a line of standard error; what only developers can use is not shown.

    Python's own options (``-W``, ``PYTHONWARNINGS``) leave everything as Python does it.
    """
    if sys.warnoptions:
        return
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = str(message)
        if issubclass(category, _FOR_DEVELOPERS) or text in shown:
            return
        shown.add(text)
        typer.secho(f"warning: {text}", fg=typer.colors.YELLOW, err=True)

    warnings.showwarning = show  # MONAI, imported later, puts its own filter in front and calls this one
