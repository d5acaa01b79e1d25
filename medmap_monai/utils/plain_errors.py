"""Errors as they arose, without the plain RuntimeErrors in which MONAI wraps what components raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what went wrong below the plain RuntimeErrors in which MONAI wraps what components raise."""
    try:
        yield
    except RuntimeError as error:
        cause = root_cause(error)
        if cause is error:
            raise
    else:
        return
    # MONAI's wrapping must be no context of it: they would be each other's, and who prints the chain never ends
    raise cause from cause.__cause__


def root_cause(error: BaseException) -> BaseException:
    """What went wrong below the plain RuntimeErrors in which MONAI wraps what components and expressions raise."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error
