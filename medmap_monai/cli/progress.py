"""A progress bar for engines that go through studies."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class StudyProgress:
    """Show how many studies are done and how long the rest will take; to be attached to an ignite engine.

    Args:
        console: where to draw; standard error when None, so that standard output can be piped.
        label: text in front of the bar.
    """

    def __init__(self, console: Console | None = None, label: str = "studies") -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console or Console(stderr=True))
        self.label = label
        self._task: Any = None

    def attach(self, engine: Any) -> None:
        """Start with the run, move with every iteration, stop when the run ends or fails."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED, self._stop)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Any) -> None:
        self._task = self.progress.add_task(self.label, total=engine.state.epoch_length)
        self.progress.start()

    def _advance(self, _engine: Any) -> None:
        self.progress.advance(self._task)

    def _stop(self, _engine: Any) -> None:
        self.progress.stop()

    def _fail(self, _engine: Any, error: BaseException) -> None:
        self.progress.stop()
        raise error
