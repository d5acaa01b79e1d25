"""How commands end when something is wrong: the message, no traceback, a non-zero exit code."""

from __future__ import annotations

from typing import NoReturn

import typer


def fail(error: BaseException | str, code: int = 1) -> NoReturn:
    """Print the message to standard error and exit with ``code``."""
    typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
    raise typer.Exit(code)
