"""How a single check says that it failed, or that it cannot be made."""

from __future__ import annotations

from typing import NoReturn


class CheckFailedError(Exception):
    """The bundle does not pass; the message says what was found and what is needed."""


class CheckSkippedError(Exception):
    """The check cannot be made on this bundle or installation; the message says why."""


def fail(message: str) -> NoReturn:
    """End the check: the bundle does not pass."""
    raise CheckFailedError(message)


def skip(reason: str) -> NoReturn:
    """End the check: it cannot be made."""
    raise CheckSkippedError(reason)
