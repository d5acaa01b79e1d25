"""Save and resume training: complete files only, and a resumed run equals an uninterrupted one."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import nn

from medmap_monai.data.training_cases import (
    TrainingCases,
    joined_cases,
    read_training_cases,
    training_cases_from,
    training_cases_of,
    write_training_cases,
)
from medmap_monai.engines.finite_guard import TrainingDivergedError, non_finite
from medmap_monai.engines.learning_rates import other_first_rates, rates_after, set_rates
from medmap_monai.engines.unlike_training import training_orientation, training_spacing, training_window
from medmap_monai.methods.base import Method
from medmap_monai.utils.counted import counted
from medmap_monai.utils.files import atomic_path, remove_stale

CHECKPOINT_NAME = "checkpoint.pt"
MODEL_NAME = "model.pt"
#: weights that were there before the first training, such as those that a bundle was shipped with
KEPT_NAME = "model_before_training.pt"


class TrainingCheckpoint:
    """Write ``checkpoint.pt`` (everything that a resume needs) and ``model.pt`` (the deployed weights).

    MONAI's ``CheckpointSaver`` writes in place, so a crash while it writes destroys the last good file, and forgets
    the best metric on resume; this handler does neither. Files hold tensors, numbers and strings only, so
    ``torch.load(weights_only=True)`` reads them. Under DDP rank 0 writes and every rank reads.

    A run may go on with another number of epochs or another first learning rate than it was started with, a finished
    one too: the learning rate is then the one that the new schedule has after the epochs done. It may go on with other
    batches, cases or processes as well: epochs count, however many iterations they have. Beside ``model.pt`` stands
    ``model_cases.json``, the training and validation cases (:mod:`~medmap_monai.data.training_cases`), with those of
    the initial weights and of the epochs before a resume. Weights of NaN or Inf are never saved, and a ``model.pt``
    that came from elsewhere (shipped, imported) is kept as ``model_before_training.pt``.

    Args:
        folder: where the files go.
        network: the deployed network; its state dict becomes ``model.pt``.
        objects: what to restore, by name, for example ``{"method": ..., "optimizer": ..., "lr_scheduler": ...}``.
        resume: whether to continue from ``checkpoint.pt`` when it exists; otherwise it is overwritten.
        interval: epochs between checkpoints; the last epoch is always saved.
        select: ``"last"`` keeps the newest weights in ``model.pt`` (the published protocols test the last epoch),
            ``"best"`` those with the highest ``validator`` key metric, among the epochs that were run with it; the
            last ones, and a warning, where none was validated.
        validator: the evaluator whose key metric selects; it must run before this handler.
        initial_weights: file of weights of the network to begin with, where nothing is resumed.

    Raises:
        ValueError: for an unknown ``select``, a missing validator, a file that is no checkpoint, or one of more epochs
            than are asked for.
        TrainingDivergedError: weights, or class scores of the validation, hold NaN or Inf.
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
        initial_weights: str | os.PathLike[str] | None = None,
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
        self.initial_weights = initial_weights
        self.best_metric: float | None = None
        self._known_cases: TrainingCases | None = None
        self._earlier_cases: TrainingCases | None = None
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Any) -> None:
        """Resume when the run starts, save when epochs end."""
        engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        if isinstance(self.validator, SupervisedEvaluator):
            self.validator.add_event_handler(IterationEvents.FORWARD_COMPLETED, _require_finite_scores)

    def _load(self, engine: Any) -> None:
        path = self.folder / CHECKPOINT_NAME
        # an engine that has trained already goes on from where it is: the rounds of federated learning
        if engine.state.iteration > 0:
            return
        if engine.state.rank == 0:
            remove_stale(self.folder)
            if not path.is_file():
                self._keep_foreign_weights()
        if not self.resume or not path.is_file():
            if self.initial_weights is not None:
                for network in self._networks():
                    load_model(network, self.initial_weights)
                self._earlier_cases = read_training_cases(self.initial_weights)
                self.logger.info("begins with the weights of %s", self.initial_weights)
            return
        saved = _read(path)
        missing = sorted({"epoch", "iteration", "max_epochs", *self.objects} - set(saved))
        if missing:
            raise ValueError(f"{path} is no checkpoint of this run: it lacks {missing}; --resume False starts anew")
        if saved["epoch"] > engine.state.max_epochs:
            raise ValueError(
                f"{path} has been trained for {saved['epoch']} epochs already, {engine.state.max_epochs} are asked "
                "for. Give as many or more, or --resume False to start anew"
            )
        longer = saved["max_epochs"] != engine.state.max_epochs
        rates = rates_after(self.objects, saved) if longer or other_first_rates(self.objects, saved) else {}
        for name, target in self.objects.items():
            if name not in rates:
                target.load_state_dict(saved[name])
        for scheduler in rates:
            set_rates(self.objects[scheduler], rates[scheduler])
            self.logger.info("goes on with the learning rate of the schedule as it is now: %g", rates[scheduler][0])
        if longer:
            self.logger.info("the run of %d epochs goes on to %d", saved["max_epochs"], engine.state.max_epochs)
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and saved["scaler"]:
            scaler.load_state_dict(saved["scaler"])
        engine.state.epoch = saved["epoch"]
        # ignite ends a run after epoch_length * max_epochs iterations, whatever was a full epoch before
        length = engine.state.epoch_length
        engine.state.iteration = saved["epoch"] * length if length else saved["iteration"]
        if engine.state.iteration != saved["iteration"]:
            self.logger.warning(
                "an epoch has %d iterations now and had %g before: other batches, cases or processes",
                *(length, saved["iteration"] / saved["epoch"]),
            )
        self._earlier_cases = training_cases_from(saved.get("cases"))
        if self.select == "best" and saved.get("select", "best") != "best":
            self.logger.warning("select was %r until now: the best is that of the epochs to come", saved["select"])
        else:
            self.best_metric = saved["best_metric"]
        if self.validator is not None and self.best_metric is not None:
            self.validator.state.best_metric = self.best_metric
            self.validator.state.best_metric_epoch = saved["best_metric_epoch"]
        self.logger.info("resumed from %s after epoch %d", path, saved["epoch"])

    def _keep_foreign_weights(self) -> None:
        """Copy a ``model.pt`` that no training here has written, since this one replaces it."""
        model, kept = self.folder / MODEL_NAME, self.folder / KEPT_NAME
        if not model.is_file() or kept.exists():
            return
        with atomic_path(kept) as temporary:
            shutil.copyfile(model, temporary)
        cases = read_training_cases(model)
        if cases is not None:
            write_training_cases(kept, cases)
        self.logger.warning("%s is replaced by this training; what was there is kept as %s", model, kept.name)

    def _networks(self) -> list[nn.Module]:
        """The network that is deployed, and the one that is trained: another one where the first is its average."""
        trained = [target.network for target in self.objects.values() if isinstance(target, Method)]
        return list({id(network): network for network in (self.network, *trained)}.values())

    def _save(self, engine: Any) -> None:
        epoch, last = engine.state.epoch, engine.state.epoch == engine.state.max_epochs
        improved = self._improved()
        bad = [where for name in self.objects for where in non_finite(_weights(self.objects[name]), name)]
        if bad or non_finite(self.network.state_dict()):
            raise TrainingDivergedError(
                f"after epoch {epoch} the weights hold NaN or Inf ({', '.join(bad[:3]) or 'network'}); nothing is "
                f"saved, {self.folder} keeps the last good checkpoint. Lower the learning rate"
            )
        if engine.state.rank != 0:
            return
        never = self.select == "best" and last and self.best_metric is None
        if never:
            self.logger.warning("no epoch was validated, so none is the best: model.pt holds the last one")
        due = self.select == "last" and (last or epoch % self.interval == 0)
        if due or never or (self.select == "best" and improved):
            _write(self.network.state_dict(), self.folder / MODEL_NAME)
            write_training_cases(self.folder / MODEL_NAME, self._cases(engine))
        if last or epoch % self.interval == 0:
            scaler = getattr(engine, "scaler", None)
            best_epoch = -1 if self.validator is None else int(self.validator.state.best_metric_epoch)
            state: dict[str, Any] = {
                "epoch": epoch,
                "iteration": engine.state.iteration,
                "max_epochs": engine.state.max_epochs,
                "best_metric": self.best_metric,
                "best_metric_epoch": best_epoch,
                "select": self.select,
                "cases": None if (cases := self._cases(engine)) is None else asdict(cases),
                "scaler": {} if scaler is None else scaler.state_dict(),
            }
            state.update({name: target.state_dict() for name, target in self.objects.items()})
            _write(state, self.folder / CHECKPOINT_NAME)

    def _cases(self, engine: Any) -> TrainingCases | None:
        """The cases of this training, where the data sets' records say them."""
        train = getattr(getattr(engine.data_loader, "dataset", None), "data", None)
        loader = getattr(self.validator, "data_loader", None)
        val = [] if self.validator is None else getattr(getattr(loader, "dataset", None), "data", None)
        if self._known_cases is None and train and val is not None:
            found = training_cases_of(train, val)
            pipeline = getattr(engine.data_loader.dataset, "transform", None)
            self._known_cases = found and joined_cases(
                self._earlier_cases,
                replace(
                    found,
                    window=training_window(pipeline),
                    orientation=training_orientation(pipeline, train),
                    spacing=training_spacing(pipeline),
                ),
            )
        return self._known_cases

    def _improved(self) -> bool:
        """Whether the validator's newest key metric is the best so far; remembers it."""
        if self.validator is None or self.validator.state.key_metric_name is None:
            return False
        value = self.validator.state.metrics.get(self.validator.state.key_metric_name)
        if value is None or (self.best_metric is not None and not float(value) > self.best_metric):
            return False
        self.best_metric = float(value)
        return True


def _require_finite_scores(validator: Any) -> None:
    """A validation of NaN would count as a Dice of 0."""
    if not bool(torch.isfinite(validator.state.output[CommonKeys.PRED]).all()):
        cases = [str(case) for case in validator.state.batch.get("case_id", ())]
        raise TrainingDivergedError(
            f"in the validation after epoch {validator.state.epoch} the network computes NaN or Inf (cases: "
            f"{', '.join(cases) or 'not named'}); nothing is saved. Lower the learning rate"
        )


def _weights(target: Any) -> Any:
    return target.state_dict() if isinstance(target, nn.Module) else {}


def _write(content: Mapping[str, Any], path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


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
        cut = [f"... and {counted(len(lines) - 12, 'more line')}"] if len(lines) > 12 else []
        shown = "\n".join(lines[:12] + cut)
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
