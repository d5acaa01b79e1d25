"""Whether the values of a batch may steer a training step, or only its masks and shapes.

A step that is recorded once and replayed (a CUDA graph) must do the same operations whatever the batch holds. Most of
this package decides by masks alone; the few places that look at values ask :func:`data_may_decide` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_fixed = ContextVar("fixed_course", default=False)


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
