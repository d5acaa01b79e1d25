"""Training curves as a tidy CSV file that survives a resume."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from torch.optim import Optimizer

from medmap_monai.engines.trainer import LOSSES
from medmap_monai.utils.files import write_text


class TrainingLog:
    """Write ``training.csv`` (columns ``epoch,name,value``): epoch means of every loss, the learning rate, metrics.

    Values are means over the iterations of the epoch and over ranks. On resume rows of later epochs are dropped, so
    the file always tells one run. Rank 0 writes, after every epoch.

    Args:
        path: the CSV file.
        optimizer: whose learning rate is logged.
        validator: an evaluator whose metrics are logged in the epochs in which it ran; it must run before.
    """

    def __init__(self, path: str | os.PathLike[str], optimizer: Optimizer, validator: Any = None) -> None:
        self.path = Path(path)
        self.optimizer = optimizer
        self.validator = validator
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0
        self._rows: list[tuple[int, str, str]] = []
        self._validated = 0
        self._has_read = False

    def attach(self, engine: Any) -> None:
        """Collect per iteration, write per epoch."""
        # not when the run starts: whatever resumes it may come after this handler
        engine.add_event_handler(Events.EPOCH_STARTED, self._read)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)

    def _read(self, engine: Any) -> None:
        if self._has_read:
            return
        self._has_read = True
        if engine.state.epoch > 1 and self.path.is_file():
            try:
                with self.path.open(newline="") as file:
                    rows = [(int(r["epoch"]), r["name"], r["value"]) for r in csv.DictReader(file)]
            except (csv.Error, KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.path} is not the log of this training ({type(error).__name__}: {error}); move it away, and "
                    "the training goes on with a new one"
                ) from error
            self._rows = [row for row in rows if row[0] < engine.state.epoch]
        self._validated = max((epoch for epoch, name, _ in self._rows if name.startswith("val_")), default=0)

    def _collect(self, engine: Any) -> None:
        output = engine.state.output
        values = {"loss": output["loss"].detach(), **{f"loss_{name}": v for name, v in output[LOSSES].items()}}
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1

    def _finish_epoch(self, engine: Any) -> None:
        epoch = engine.state.epoch
        means = {name: idist.all_reduce(value / self._count, "SUM") for name, value in self._sums.items()}
        values = {name: float(value) / idist.get_world_size() for name, value in means.items()}
        values["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
        if self.validator is not None and self.validator.state.epoch == epoch and self._validated < epoch:
            values.update({f"val_{name}": float(v) for name, v in self.validator.state.metrics.items()})
            self._validated = epoch
        self._sums, self._count = {}, 0
        if engine.state.rank != 0:
            return
        self._rows += [(epoch, name, f"{value:.8g}") for name, value in values.items()]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("epoch", "name", "value"))
        writer.writerows(self._rows)
        write_text(self.path, text.getvalue())
