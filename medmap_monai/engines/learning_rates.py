"""Learning rates of a training that goes on with another schedule than it was saved with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


def rates_after(objects: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, list[float]]:
    """Scheduler's name -> learning rates that its schedule, as configured now, has after the steps that are saved.

    The schedule is walked through from its start, which serves every scheduler that knows its way beforehand.
    """
    found = {}
    for name, target in objects.items():
        if isinstance(target, LRScheduler) and not isinstance(target, ReduceLROnPlateau):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # no optimiser step between these steps, which is as it should be
                for _ in range(int(saved[name].get("last_epoch", saved["epoch"]))):
                    target.step()
            found[name] = [float(rate) for rate in target.get_last_lr()]
    return found


def other_first_rates(objects: Mapping[str, Any], saved: Mapping[str, Any]) -> bool:
    """Whether a schedule begins with another learning rate now than where it was saved."""
    return any(
        list(saved[name].get("base_lrs", target.base_lrs)) != list(target.base_lrs)
        for name, target in objects.items()
        if isinstance(target, LRScheduler) and not isinstance(target, ReduceLROnPlateau)
    )


def set_rates(scheduler: LRScheduler, rates: Sequence[float]) -> None:
    """Give the optimiser of ``scheduler`` the learning rates that the schedule is at."""
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
