"""What the host learns from masks during a step, written down once and answered from memory afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from medmap_monai.utils.fixed_course import CannotRecordError, watched_course

_KNOWN = "_follows_from_masks"
# values that leave the device: the host waits for it
_TO_HOST = {"__bool__", "__int__", "__float__", "__index__", "__contains__", "item", "tolist", "numpy", "cpu", "equal"}
# results whose size depends on values: likewise
_SIZED_BY_VALUES = {"nonzero", "argwhere", "unique", "masked_select", "bincount"}
# tensors made of Python values: a copy to the device that cannot be recorded
_FROM_HOST = {"tensor", "as_tensor", "asarray", "new_tensor"}
# of a tensor they read shape and type only
_CONSTANTS = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}


class DataDecisionError(CannotRecordError):
    """A step looked at a value that does not follow from its masks, so it cannot be replayed for other data."""


class MaskDecisions(TorchFunctionMode):
    """Write down, or answer from memory, every answer that masks give to the host during a step.

    Networks and methods skip what a mask hides: they ask for row numbers (``nonzero``), truth values, lists. On a GPU
    each question makes the host wait, and none may be asked while a CUDA graph is recorded. The answers follow from
    the masks, so for equal masks they are equal: the first step under :meth:`recording` writes them down, a later one
    under :meth:`replaying` gets them in the same order and asks nothing.

    That an answer follows from the masks is proved and not assumed: tensors computed from masks and constants alone
    are tracked, and a question about any other tensor is an error.

    Args:
        masks: the masks of the step.

    Raises:
        DataDecisionError: at a question about data; when replaying, also where the questions are not those recorded.
    """

    def __init__(self, masks: Iterable[Tensor]) -> None:
        super().__init__()
        self.answers: list[tuple[str, Any, list[int]]] = []
        self._next: int | None = None
        for mask in masks:
            setattr(mask, _KNOWN, True)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Compute as usual, and write the answers down anew."""
        self.answers, self._next = [], None
        with self, watched_course():
            yield

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Answer from memory."""
        self._next = 0
        try:
            with self, watched_course():
                yield
            if self._next != len(self.answers):
                raise DataDecisionError(f"the step asked {self._next} questions, recorded were {len(self.answers)}")
        finally:
            self._next = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__getitem__", "__setitem__") and _has_bool_index(args[1]):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], self._row_numbers(index), *args[2:])
        asks = name in _TO_HOST or name in _SIZED_BY_VALUES
        asks = asks or (name == "repeat_interleave" and _by_tensor(args)) or (name == "where" and len(args) == 1)
        if asks or (name in _FROM_HOST and not _tensors(args, kwargs)) or _leaves_host(name, args, kwargs):
            return self._answer(name, func, args, kwargs)
        known = name in _CONSTANTS or _known(args, kwargs)
        result = func(*args, **kwargs)
        if (name.endswith("_") and not name.endswith("__")) or name == "__setitem__":  # in place: data may come in
            if args and isinstance(args[0], Tensor):
                setattr(args[0], _KNOWN, known)
            return result
        return _mark(result, known)

    def _answer(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _known(args, kwargs):
            raise DataDecisionError(f"the step asks for {name} of a tensor that does not follow from its masks")
        if self._next is None:
            answer = _mark(func(*args, **kwargs), True)
            versions = [tensor._version for tensor in _tensors(answer)]
            self.answers.append((name, answer, versions))
            return deepcopy(answer) if isinstance(answer, list) else answer
        if self._next >= len(self.answers) or self.answers[self._next][0] != name:
            raise DataDecisionError(f"the step asks for {name} where the recorded one did not")
        answer, versions = self.answers[self._next][1:]
        if versions != [tensor._version for tensor in _tensors(answer)]:
            raise DataDecisionError(f"the step changes in place what {name} returned")
        self._next += 1
        return deepcopy(answer) if isinstance(answer, list) else answer

    def _row_numbers(self, index: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same index with row numbers in place of boolean masks."""
        plain: list[Any] = []
        for part in index:
            if isinstance(part, Tensor) and part.dtype == torch.bool and part.ndim > 0:
                plain += self._answer("nonzero", torch.nonzero, (part,), {"as_tuple": True})
            else:
                plain.append(part)
        return tuple(plain)


def _tensors(*values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += _tensors(*value)
        elif isinstance(value, dict):
            found += _tensors(*value.values())
    return found


def _known(args: Any, kwargs: Any) -> bool:
    """Whether all tensors among the arguments follow from masks; True where there is none (a constant)."""
    return all(getattr(tensor, _KNOWN, False) for tensor in _tensors(args, kwargs))


def _mark(result: Any, known: bool) -> Any:
    if known:
        for tensor in _tensors(result):
            setattr(tensor, _KNOWN, True)
    return result


def _has_bool_index(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool and part.ndim > 0 for part in parts)


def _by_tensor(args: tuple[Any, ...]) -> bool:
    return len(args) > 1 and isinstance(args[1], Tensor)


def _leaves_host(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the call copies a tensor between the host and a GPU."""
    if name not in ("to", "cuda") or not args or not isinstance(args[0], Tensor):
        return False
    target = kwargs.get("device", args[1] if len(args) > 1 else "cuda" if name == "cuda" else None)
    if isinstance(target, Tensor):
        target = target.device
    if not isinstance(target, (str, torch.device, int)) or isinstance(target, bool):
        return False
    return (torch.device(target).type == "cpu") != (args[0].device.type == "cpu")
