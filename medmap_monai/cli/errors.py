"""How commands end when something is wrong: the message, no traceback, a non-zero exit code."""

from __future__ import annotations

from typing import NoReturn

import typer


def fail(error: BaseException | str, code: int = 1) -> NoReturn:
    """Print the message to standard error and exit with ``code``."""
    typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
    raise typer.Exit(code)


def root_cause(error: BaseException) -> BaseException:
    """What went wrong below the plain RuntimeErrors in which MONAI wraps what components and expressions raise."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error
