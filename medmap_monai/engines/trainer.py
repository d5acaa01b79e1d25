"""A MONAI trainer for methods: sums their losses and gives them the hooks that balancing needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import PrepareBatchExtraInput, SupervisedTrainer
from monai.engines.trainer import Trainer
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer
from monai.utils import convert_to_tensor, look_up_option
from monai.utils.enums import CommonKeys
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from medmap_monai.engines.captured_step import CapturedStep
from medmap_monai.engines.finite_guard import FiniteGuard
from medmap_monai.engines.seeding import seed_epoch
from medmap_monai.losses.label_maps import check_classes
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.masks import check_masks
from medmap_monai.utils.current_device import current_device
from medmap_monai.utils.half_precision import amp_arguments

LOSSES = "losses"
PER_MODALITY = "per_modality"
MASKS = ("modality_mask", "present_mask")
STEPS = ("auto", "recorded", "eager")
PRECISIONS = ("float32", "float16", "bfloat16")


class StepOutput(list[dict[str, Any]]):
    """What a step leaves for handlers: a list of one dictionary whose keys can be asked for directly.

    MONAI's ``from_engine(["loss"], first=True)``, which its tracking uses, takes a list of dictionaries for what was
    decollated and gives the value, but a tuple for a dictionary; decollating would copy every prediction.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__([values])

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(0)[key] if isinstance(key, str) else super().__getitem__(key)


def unwrap_method(network: nn.Module) -> Method:
    """The method inside ``network``, which may be wrapped in DistributedDataParallel.

    Raises:
        TypeError: when there is none.
    """
    inner = getattr(network, "module", network)
    if not isinstance(inner, Method):
        raise TypeError(f"the trainer needs a medmap_monai Method (or DDP around one), got {type(inner).__name__}")
    return inner


class ModalityTrainer(SupervisedTrainer):
    """``SupervisedTrainer`` whose network is a :class:`~medmap_monai.methods.base.Method`.

    The iteration is MONAI's own: the method is called with image, masks and label, its losses are summed, and
    ``engine.state.output`` holds ``pred`` (logits), ``loss``, ``losses`` and ``per_modality``. Batches need the keys
    ``image``, ``label``, ``modality_mask`` and ``present_mask``.

    Args:
        device: where to train.
        max_epochs: number of epochs.
        train_data_loader: loader of training batches.
        network: the method, or DistributedDataParallel around it.
        optimizer: over the method's parameters.
        loss_weights: factor per loss name; a name that no loss has is an error, an unnamed loss has factor 1.
        max_grad_norm: gradient clipping by total norm; None leaves gradients alone.
        steps: ``recorded``: forward and backward are recorded once per pattern of masks and replayed
            (:class:`~medmap_monai.engines.captured_step.CapturedStep`; one CUDA device, no gradient accumulation, a
            method that allows it); ``eager``: never; ``auto``: recorded where possible.
        precision: ``float32``, ``float16`` or ``bfloat16``: the autocast type on a GPU, instead of ``amp`` and
            ``amp_kwargs``; None leaves the choice to those, and where they name no type, to
            :func:`~medmap_monai.utils.half_precision.half_precision`.
        seed: makes everything random in epoch e a pure function of (seed, e, rank), so that a resumed run equals an
            uninterrupted one; None leaves the random state alone.
        train_handlers: handlers; they run after the method's own epoch hooks.
        kwargs: every other argument of ``SupervisedTrainer`` (amp, accumulation_steps, key_train_metric, ...);
            batches are not decollated unless it says so.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        optimizer: Optimizer,
        loss_weights: Mapping[str, float] | None = None,
        max_grad_norm: float | None = None,
        seed: int | None = None,
        steps: str = "auto",
        precision: str | None = None,
        train_handlers: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.method = unwrap_method(network)
        self.loss_weights = dict(loss_weights or {})
        self.max_grad_norm = max_grad_norm
        self.seed = seed
        self.steps = look_up_option(steps, STEPS)
        if precision is not None:
            look_up_option(precision, PRECISIONS)
            kwargs["amp"] = precision != "float32" and torch.device(device).type == "cuda"
            kwargs["amp_kwargs"] = {"dtype": getattr(torch, precision)}
        elif kwargs.get("amp"):
            kwargs["amp_kwargs"] = amp_arguments(device, kwargs.get("amp_kwargs"))
        masks = {"modality_mask": "modality_mask", "present_mask": "present_mask", "label": "label"}
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=self._weighted_sum,
            **dict[str, Any]({"prepare_batch": PrepareBatchExtraInput(masks), "decollate": False}, **kwargs),
        )
        # with bfloat16 nothing underflows, so nothing need be scaled or checked
        dtype = self.amp_kwargs["dtype"] if self.amp else None
        self.guard = FiniteGuard(dtype)
        scaled = dtype not in (None, torch.bfloat16) and torch.device(self.state.device).type == "cuda"
        self.scaler = torch.amp.GradScaler("cuda", enabled=scaled) if self.amp else None  # type: ignore[assignment]
        self.method.attach_optimizer(optimizer)
        self.captured = self._capturable()
        self.device_part = getattr(getattr(train_data_loader, "dataset", None), "device_part", None)
        self.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        self.add_event_handler(IterationEvents.LOSS_COMPLETED, self._unpack)
        self.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._adjust_gradients)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        if train_handlers is not None:
            self._register_handlers(train_handlers)

    def run(self) -> None:  # type: ignore[override]
        """Train; an empty loader is an error here, where MONAI only warns, and so is a loss of NaN or Inf.

        Raises:
            ValueError: when there is nothing to train on.
            TrainingDivergedError: names epoch, losses and the cases of the batch.
        """
        if self.state.epoch_length == 0:
            raise ValueError("there are no training cases: check dataset_dir, split_file and the fold sizes")
        # not MONAI's own run, which makes a new gradient scaler: steps were recorded with this one, and what it has
        # learned belongs to the training when a run goes on
        with current_device(self.state.device):
            super(Trainer, self).run()

    def _capturable(self) -> CapturedStep | None:
        """The step that records itself; None where steps run eagerly."""
        reasons = {
            "the device is no GPU": torch.device(self.state.device).type != "cuda",
            "the network is wrapped (DistributedDataParallel)": self.network is not self.method,
            "gradients are accumulated": self.accumulation_steps > 1,
            "the inferer is not SimpleInferer": type(self.inferer) is not SimpleInferer,
            f"{type(self.method).__name__} does not allow it": self.method.course() is None,
        }
        against = [reason for reason, holds in reasons.items() if holds]
        if self.steps == "recorded" and against:
            raise ValueError(f"steps='recorded' is not possible: {'; '.join(against)}; use 'auto' or 'eager'")
        if self.steps == "eager" or against:
            return None
        scaler = self.scaler if self.amp else None
        return CapturedStep(
            self.method,
            lambda output: self._weighted_sum(output, output.pred),
            scale=None if scaler is None else scaler.scale,
            autocast=partial(torch.autocast, "cuda", **self.amp_kwargs) if self.amp else nullcontext,
        )

    def _iteration(self, engine: Any, batchdata: dict[str, Tensor]) -> StepOutput:  # type: ignore[override]
        """MONAI's iteration; where steps are recorded, the same events around one launch."""
        if all(name in batchdata for name in MASKS):  # the method checks them too, but knows no names
            visible, present = (torch.as_tensor(batchdata[name], dtype=torch.bool) for name in MASKS)
            cases = batchdata.get("case_id")
            check_masks(visible, present, None if cases is None else [str(case) for case in cases])
        if self.captured is not None:  # on the host, before it travels
            check_classes(batchdata[CommonKeys.LABEL], self.method.network.out_channels)
        if self.device_part is not None:
            batchdata = self.device_part(batchdata, self.non_blocking)
        if self.captured is None:
            return StepOutput(super()._iteration(engine, batchdata))
        pattern = tuple(tuple(torch.as_tensor(batchdata[name]).flatten().tolist()) for name in MASKS)
        image, label, _, extra = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        self.network.train()
        batch = {"image": image, "label": label, **{name: extra[name] for name in MASKS}}
        result = self.captured({name: convert_to_tensor(value) for name, value in batch.items()}, pattern)
        self.state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label, CommonKeys.PRED: result.output}
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        self.state.output[CommonKeys.LOSS] = result.loss
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if self.amp and self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return StepOutput(self.state.output)

    def _weighted_sum(self, output: MethodOutput, _target: Tensor) -> Tensor:
        unknown = sorted(set(self.loss_weights) - set(output.losses))
        if unknown:
            raise ValueError(f"loss_weights names {unknown}; this method's losses are {sorted(output.losses)}")
        return torch.stack([self.loss_weights.get(k, 1.0) * v for k, v in output.losses.items()]).sum()

    def _start_epoch(self, engine: Any) -> None:
        epoch = engine.state.epoch - 1
        if self.seed is not None:
            seed_epoch(self.seed, epoch, self.state.rank, getattr(self.data_loader, "dataset", None))
        self.method.on_epoch_start(epoch)

    def _unpack(self, engine: Any) -> None:
        """Keep what handlers read; feature maps of the method's output die here and not at the end of the step."""
        output: MethodOutput = engine.state.output[CommonKeys.PRED]
        engine.state.output[CommonKeys.PRED] = output.pred.detach()
        engine.state.output[LOSSES] = {name: value.detach() for name, value in output.losses.items()}
        engine.state.output[PER_MODALITY] = output.per_modality
        losses = {"loss": engine.state.output[CommonKeys.LOSS], **engine.state.output[LOSSES]}
        cases = engine.state.batch.get("case_id", ()) if isinstance(engine.state.batch, Mapping) else ()
        self.guard.look_at(losses, engine.state.epoch, engine.state.iteration, [str(case) for case in cases])

    def _adjust_gradients(self, engine: Any) -> None:
        """Once per optimiser step: unscale (AMP), let the method adjust gradients, clip."""
        length = engine.state.epoch_length
        done = (engine.state.iteration - 1) % length + 1 if length else engine.state.iteration
        if done % self.accumulation_steps != 0 and done != length:
            return
        if self.amp and self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        self.method.after_backward()
        if self.max_grad_norm is not None:
            clip_grad_norm_(self.network.parameters(), self.max_grad_norm)

    def _end_epoch(self, engine: Any) -> None:
        self.guard.finish()  # before any handler saves
        self.method.on_epoch_end(engine.state.epoch - 1)
