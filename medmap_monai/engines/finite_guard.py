"""Stop a training whose losses are no numbers any more, before anything that is good is overwritten."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medmap_monai.utils.current_device import current_device

_FLOAT16 = "; float16 ends at 65,504: bfloat16 or no mixed precision at all (amp false) reaches further"


class TrainingDivergedError(RuntimeError):
    """Losses, class scores or weights hold NaN or Inf; the checkpoint on disk is the last good one."""


class _Step(NamedTuple):
    values: Tensor
    ready: torch.cuda.Event | None
    names: tuple[str, ...]
    epoch: int
    iteration: int
    cases: tuple[str, ...]


class FiniteGuard:
    """Look at the losses of every step.

    On a GPU the values of a step are looked at when they have arrived, a few steps later, so that no step waits for
    the host; :meth:`finish` waits for all of them, and must run before anything is saved.

    Args:
        dtype: the type of mixed precision; float16, which ends at 65,504, is named as a possible cause.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self._hint = "" if dtype != torch.float16 else _FLOAT16
        self._waiting: deque[_Step] = deque()

    def look_at(self, losses: Mapping[str, Tensor], epoch: int, iteration: int, cases: Sequence[str]) -> None:
        """Take the scalars ``losses`` (the sum first, say) of one step.

        Raises:
            TrainingDivergedError: this step's, or an earlier step's, losses are not finite.
        """
        values = torch.stack([value.detach().float().reshape(()) for value in losses.values()])
        ready = None
        if values.is_cuda:
            host = torch.empty(values.shape, pin_memory=True)
            with current_device(values.device):
                host.copy_(values, non_blocking=True)
                ready = torch.cuda.Event()
                ready.record()
            values = host
        self._waiting.append(_Step(values, ready, tuple(losses), epoch, iteration, tuple(cases)))
        while self._waiting and (self._waiting[0].ready is None or self._waiting[0].ready.query()):
            _judge(self._waiting.popleft(), self._hint)

    def finish(self) -> None:
        """Look at every step that has not been looked at yet.

        Raises:
            TrainingDivergedError: as :meth:`look_at`.
        """
        while self._waiting:
            step = self._waiting.popleft()
            if step.ready is not None:
                step.ready.synchronize()
            _judge(step, self._hint)


def non_finite(content: Any, name: str = "") -> list[str]:
    """Names of the tensors in nested dicts and lists that hold NaN or Inf."""
    if isinstance(content, torch.Tensor):
        fine = not content.is_floating_point() or bool(torch.isfinite(content).all())
        return [] if fine else [name]
    if isinstance(content, Mapping):
        items: Any = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    else:
        return []
    return [bad for key, value in items for bad in non_finite(value, f"{name}.{key}" if name else str(key))]


def _judge(step: _Step, hint: str) -> None:
    finite = torch.isfinite(step.values)
    if bool(finite.all()):
        return
    pairs = zip(step.names, step.values.tolist(), finite.tolist(), strict=True)
    bad = ", ".join(f"{name} = {value}" for name, value, fine in pairs if not fine)
    raise TrainingDivergedError(
        f"training stopped in epoch {step.epoch}, iteration {step.iteration}: {bad} (cases of the batch: "
        f"{', '.join(step.cases) or 'not named'}). The checkpoint of the last good epoch is kept. Lower the learning "
        f"rate, or look for voxels of extreme value in these cases{hint}"
    )
