"""Progress of an evaluation: cases done, time per case, time left."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medmap_monai.utils.counted import counted

_log = logging.getLogger(__name__)


class EvaluationProgress:
    """A bar on a terminal, one log line per case elsewhere.

    Args:
        total: cases to evaluate now.
        kept: cases that an earlier run finished.
        shown: False keeps quiet.
    """

    def __init__(self, total: int, kept: int = 0, shown: bool = True) -> None:
        self.total = total
        self.kept = kept
        self.done = 0
        self._started = time.monotonic()
        console = Console(stderr=True)
        self._bar: Progress | None = None
        if shown and console.is_terminal:
            self._bar = Progress(
                TextColumn("evaluating"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("cases"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.description}"),
                console=console,
            )
        self._task = self._bar.add_task("", total=total) if self._bar else None
        self._quiet = not shown

    def __enter__(self) -> EvaluationProgress:
        if self._bar:
            self._bar.start()
        if not self._quiet and self.kept:
            _log.info("%s kept from an earlier run", counted(self.kept, "case is", "cases are"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, case_id: str) -> None:
        """One more case is done."""
        self.done += 1
        if self._quiet:
            return
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=1, description=case_id)
            return
        per_case = (time.monotonic() - self._started) / self.done
        left = per_case * (self.total - self.done)
        _log.info("%d/%d %s, %.1f s per case, %.0f s left", self.done, self.total, case_id, per_case, left)
