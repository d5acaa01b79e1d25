"""A running average of weights whose momentum, too, goes on after a resume."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events
from ignite.handlers import EMAHandler


class WeightAverage(EMAHandler):
    """ignite's ``EMAHandler`` whose warm-up counts the iterations of the training and not those of the process.

    ignite's own schedule of the momentum begins anew with every process, so that a resumed run forgets the average
    that its checkpoint restored within some twenty steps, however far the training was.

    Args:
        model, momentum, momentum_warmup, warmup_iters, handle_buffers: see ``ignite.handlers.EMAHandler``.
    """

    def attach(
        self,
        engine: Any,
        name: str = "ema_momentum",
        warn_if_exists: bool = True,
        event: Any = Events.ITERATION_COMPLETED,
    ) -> None:
        schedule, self._momentum_lambda_obj = self._momentum_lambda_obj, None  # what ignite would count by itself
        if schedule is not None:
            engine.add_event_handler(event, lambda: setattr(engine.state, name, schedule(engine.state.iteration)))
        super().attach(engine, name, warn_if_exists, event)
