"""Save and resume training: complete files only, and a resumed run equals an uninterrupted one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from torch import nn

from medmap_monai.utils.files import atomic_path

CHECKPOINT_NAME = "checkpoint.pt"
MODEL_NAME = "model.pt"


class TrainingCheckpoint:
    """Write ``checkpoint.pt`` (everything that a resume needs) and ``model.pt`` (the deployed weights).

    MONAI's ``CheckpointSaver`` writes in place, so a crash while it writes destroys the last good file, and forgets
    the best metric on resume; this handler does neither. Files hold tensors, numbers and strings only, so
    ``torch.load(weights_only=True)`` reads them. Under DDP rank 0 writes and every rank reads.

    Args:
        folder: where both files go.
        network: the deployed network; its state dict becomes ``model.pt``.
        objects: what to restore, by name, for example ``{"method": ..., "optimizer": ..., "lr_scheduler": ...}``.
        resume: whether to continue from ``checkpoint.pt`` when it exists; otherwise it is overwritten.
        interval: epochs between checkpoints; the last epoch is always saved.
        select: ``"last"`` keeps the newest weights in ``model.pt`` (the published protocols test the last epoch),
            ``"best"`` those with the highest ``validator`` key metric.
        validator: the evaluator whose key metric selects; it must run before this handler.

    Raises:
        ValueError: for an unknown ``select``, a missing validator, or a checkpoint made with other ``max_epochs``.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        network: nn.Module,
        objects: Mapping[str, Any],
        resume: bool = True,
        interval: int = 1,
        select: str = "last",
        validator: Any = None,
    ) -> None:
        if select not in ("last", "best"):
            raise ValueError(f"select must be 'last' or 'best', got {select!r}")
        if select == "best" and validator is None:
            raise ValueError("select='best' needs a validator")
        self.folder = Path(folder)
        self.network = network
        self.objects = dict(objects)
        self.resume = resume
        self.interval = interval
        self.select = select
        self.validator = validator
        self.best_metric: float | None = None
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Any) -> None:
        """Resume when the run starts, save when epochs end."""
        engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _load(self, engine: Any) -> None:
        path = self.folder / CHECKPOINT_NAME
        # an engine that has trained already goes on from where it is: the rounds of federated learning
        if not self.resume or engine.state.iteration > 0 or not path.is_file():
            return
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["max_epochs"] != engine.state.max_epochs:
            raise ValueError(
                f"{path} belongs to a run of {saved['max_epochs']} epochs, this one has {engine.state.max_epochs}: the "
                "learning-rate schedule would not fit. Use the same number of epochs, or --resume False to start anew."
            )
        for name, target in self.objects.items():
            target.load_state_dict(saved[name])
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and saved["scaler"]:
            scaler.load_state_dict(saved["scaler"])
        engine.state.epoch = saved["epoch"]
        engine.state.iteration = saved["iteration"]
        self.best_metric = saved["best_metric"]
        if self.validator is not None and self.best_metric is not None:
            self.validator.state.best_metric = self.best_metric
            self.validator.state.best_metric_epoch = saved["best_metric_epoch"]
        self.logger.info("resumed from %s after epoch %d", path, saved["epoch"])

    def _save(self, engine: Any) -> None:
        epoch, last = engine.state.epoch, engine.state.epoch == engine.state.max_epochs
        improved = self._improved()
        if engine.state.rank != 0:
            return
        if (self.select == "best" and improved) or (self.select == "last" and (last or epoch % self.interval == 0)):
            _write(self.network.state_dict(), self.folder / MODEL_NAME)
        if last or epoch % self.interval == 0:
            scaler = getattr(engine, "scaler", None)
            best_epoch = -1 if self.validator is None else int(self.validator.state.best_metric_epoch)
            state: dict[str, Any] = {
                "epoch": epoch,
                "iteration": engine.state.iteration,
                "max_epochs": engine.state.max_epochs,
                "best_metric": self.best_metric,
                "best_metric_epoch": best_epoch,
                "scaler": {} if scaler is None else scaler.state_dict(),
            }
            state.update({name: target.state_dict() for name, target in self.objects.items()})
            _write(state, self.folder / CHECKPOINT_NAME)

    def _improved(self) -> bool:
        """Whether the validator's newest key metric is the best so far; remembers it."""
        if self.validator is None or self.validator.state.key_metric_name is None:
            return False
        value = self.validator.state.metrics.get(self.validator.state.key_metric_name)
        if value is None or (self.best_metric is not None and not float(value) > self.best_metric):
            return False
        self.best_metric = float(value)
        return True


def _write(content: Mapping[str, Any], path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


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


def load_model(network: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Load ``model.pt`` into ``network`` strictly and return it.

    Args:
        network: the network that the file must fit.
        path: a state dict, or a dict that holds one under ``model``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file cannot be read as tensors, a key is missing, unexpected or of another shape, or a
            tensor holds NaN or Inf.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file}: train the bundle first, or put a model.pt there")
    saved = _read(file)
    state = saved.get("model", saved) if isinstance(saved, dict) else saved
    bad = non_finite(state)
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(f"{file} holds NaN or Inf in {', '.join(bad[:3])}{more}: its training went wrong")
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = str(error).splitlines()
        shown = "\n".join(lines[:12] + ([f"... and {len(lines) - 12} more lines"] if len(lines) > 12 else []))
        raise ValueError(
            f"{file} does not fit the network of this configuration. Was it trained with an overlay (for example "
            f"configs/phantom.json) that is not given now?\n{shown}"
        ) from error
    return network


def _read(file: Path) -> Any:
    """The content of a checkpoint; what is none is named in one line."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is not a checkpoint of plain tensors: {reason[:200]}") from error
