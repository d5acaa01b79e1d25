"""How balanced the modalities are, epoch by epoch: a tidy CSV file that survives a resume, and TensorBoard."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from torch import Tensor

from medmap_monai.engines.trainer import PER_MODALITY
from medmap_monai.methods.base import Method
from medmap_monai.modalities import Modalities
from medmap_monai.utils.files import write_text

COLUMNS = ("epoch", "name", "modality", "value")
Row = tuple[int, str, str, str]


class BalanceLog:
    """Write ``balance.csv`` (columns ``epoch,name,modality,value``) and, where given a writer, TensorBoard scalars.

    Rows are the epoch's means of every per-modality value of the method (losses, distances, gates), over the
    iterations that saw the modality and over ranks, and what the method's parts tell of their state after the epoch
    (``balance_report``: PASSION's beta, eta and relative preference; DMAF-Net's gaps, weights and scales). A modality
    that was not seen has no row; a scalar has an empty ``modality``. Epochs count from 1, as in the training log. On
    resume rows of later epochs are dropped, so the file always tells one run. Rank 0 writes, after every epoch.

    Args:
        path: the CSV file.
        method: the method that is trained.
        modalities: names in channel order.
        writer: anything with ``add_scalar(tag, value, step)``, such as a TensorBoard ``SummaryWriter``.

    Raises:
        ValueError: when the names do not fit the method's network.
    """

    def __init__(
        self, path: str | os.PathLike[str], method: Method, modalities: Sequence[str], writer: Any = None
    ) -> None:
        self.path = Path(path)
        self.method = method
        self.modalities = Modalities(tuple(modalities))
        self.writer = writer
        if len(self.modalities) != method.network.modalities:
            raise ValueError(
                f"the network has {method.network.modalities} modalities, the log {len(self.modalities)}: {modalities}"
            )
        self._sums: dict[str, Tensor] = {}
        self._rows: list[Row] | None = None

    def attach(self, engine: Any) -> None:
        """Collect per iteration, write per epoch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)

    def _collect(self, engine: Any) -> None:
        for name, values in engine.state.output[PER_MODALITY].items():
            known = ~values.isnan()
            step = torch.stack([torch.where(known, values, 0.0), known.to(values.dtype)])
            self._sums[name] = step if name not in self._sums else self._sums[name] + step

    def _finish_epoch(self, engine: Any) -> None:
        epoch: int = engine.state.epoch
        values: dict[str, Tensor] = {}
        for name in sorted(self._sums):
            total, count = idist.all_reduce(self._sums[name], "SUM").unbind()  # type: ignore[union-attr]
            values[name] = total / count  # 0/0 = NaN: nobody has it
        self._sums = {}
        for part in self.method.modules():
            report: Any = getattr(part, "balance_report", None)
            if report is not None:
                values.update(report())
        if engine.state.rank != 0:
            return
        rows = self._earlier_rows(epoch)
        for name, value in values.items():
            for modality, number in self._numbers(name, value):
                rows.append((epoch, name, modality, f"{number:.8g}"))
                if self.writer is not None:
                    self.writer.add_scalar("/".join(["balance", name, *filter(None, [modality])]), number, epoch)
        self._rows = rows
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)
        write_text(self.path, text.getvalue())

    def _earlier_rows(self, epoch: int) -> list[Row]:
        """Rows of the epochs before this one: from memory, or once, after a resume, from the file."""
        if self._rows is None:
            self._rows = read_balance_log(self.path) if epoch > 1 and self.path.is_file() else []
        return [row for row in self._rows if row[0] < epoch]

    def _numbers(self, name: str, value: Tensor) -> list[tuple[str, float]]:
        """(modality, number) of a value (M,), or ("", number) of a scalar; without NaN."""
        if value.ndim == 0:
            return [("", float(value))]
        if value.shape != (len(self.modalities),):
            raise ValueError(f"balance value {name!r} has shape {list(value.shape)}, not [{len(self.modalities)}]")
        pairs = zip(self.modalities, value.tolist(), strict=True)
        return [(modality, number) for modality, number in pairs if number == number]


def read_balance_log(path: str | os.PathLike[str]) -> list[Row]:
    """Rows ``(epoch, name, modality, value as text)`` of a file that :class:`BalanceLog` wrote.

    Raises:
        ValueError: when the file has other columns.
    """
    with Path(path).open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path} has columns {reader.fieldnames}, a balance log has {list(COLUMNS)}")
        return [(int(r["epoch"]), r["name"], r["modality"], r["value"]) for r in reader]
