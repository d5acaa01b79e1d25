"""Whether the values of a batch may steer a training step, or only its masks and shapes.

A step that is recorded once and replayed (a CUDA graph) must do the same operations whatever the batch holds. Most of
this package decides by masks alone; the few places that look at values ask :func:`data_may_decide` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_fixed = ContextVar("fixed_course", default=False)
_watched = ContextVar("watched_course", default=False)


class CannotRecordError(RuntimeError):
    """A step holds something that no recording can hold; nothing was recorded, and it may run as always."""


def data_may_decide() -> bool:
    """False inside :func:`fixed_course`: compute for all rows and mask, and leave checks of values to the caller."""
    return not _fixed.get()


@contextmanager
def fixed_course() -> Iterator[None]:
    """Inside, a step's operations depend on masks and shapes only."""
    token = _fixed.set(True)
    try:
        yield
    finally:
        _fixed.reset(token)


@contextmanager
def watched_course() -> Iterator[None]:
    """Inside, a step that is to be recorded, now or next time, is computed: :func:`refuse_recording` is an error."""
    token = _watched.set(True)
    try:
        yield
    finally:
        _watched.reset(token)


def refuse_recording(reason: str) -> None:
    """Called by an operation that no recording can hold; does nothing in a step that runs as always.

    Raises:
        CannotRecordError: inside :func:`watched_course`. A CUDA graph would break off instead, and leave the device's
            random numbers in a state in which the next dropout fails.
    """
    if _watched.get():
        raise CannotRecordError(reason)
