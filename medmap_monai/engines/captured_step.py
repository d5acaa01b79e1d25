"""Forward, losses and backward of a training step, recorded once per pattern of masks and replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medmap_monai.engines.mask_decisions import MaskDecisions
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.utils.current_device import current_device
from medmap_monai.utils.fixed_course import CannotRecordError, fixed_course

_log = logging.getLogger(__name__)

Run = Callable[[], Any]
#: records the operations of ``run``; returns what it returned, and a function that does them again on the same memory
Recorder = Callable[[Run], tuple[Any, Callable[[], None]]]


class StepResult(NamedTuple):
    """What a step computed; gradients are in the parameters.

    output: the method's output, detached.
    loss: the weighted sum of its losses, unscaled.
    """

    output: MethodOutput
    loss: Tensor


@dataclass
class _Pattern:
    """One pattern of masks: its decisions after the first step, its recording after the second."""

    decisions: MaskDecisions | None = None
    static: dict[str, Tensor] | None = None
    result: StepResult | None = None
    used: list[bool] | None = None
    replay: Callable[[], None] | None = None
    addresses: tuple[int, ...] = ()
    eager: bool = False


class CudaGraphs:
    """Record on a CUDA device; all recordings share one pool of memory, since they never run at the same time.

    Args:
        device: the GPU that computes the steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool: Any = None
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, run: Run) -> tuple[Any, Callable[[], None]]:
        with current_device(self.device):
            self._stream = self._stream or torch.cuda.Stream()
            graph = torch.cuda.CUDAGraph()
            random = torch.cuda.get_rng_state()
            try:
                # thread_local: the loader's thread pins memory meanwhile, which is no part of the step
                with torch.cuda.graph(graph, self.pool, self._stream, capture_error_mode="thread_local"):
                    result = run()
            except RuntimeError:
                # a recording that breaks off leaves the generator waiting for its end, and the next dropout fails
                fresh = torch.Generator("cuda")
                fresh.set_state(random)
                torch.cuda.default_generators[torch.cuda.current_device()].graphsafe_set_state(fresh)
                raise
            self.pool = self.pool or graph.pool()
        return result, graph.replay


class CapturedStep:
    """Training steps of a :class:`~medmap_monai.methods.base.Method` without the cost of launching each kernel.

    Steps of these networks are thousands of small kernels: a GPU waits for the host that launches them. Here the
    first step of each pattern (shapes, both masks, the method's ``course``) runs as always, the second is recorded,
    and from then on it is one launch. Steps that cannot be recorded run as always: methods without a ``course``, steps
    that look at data (:class:`~medmap_monai.engines.mask_decisions.DataDecisionError`) or compute anew in backward
    (:func:`~medmap_monai.utils.fixed_course.refuse_recording`), and patterns beyond ``max_patterns``. The numbers are
    those of the eager step, operation by operation.

    Args:
        method: the method, in training mode and on its device.
        loss: the scalar to minimise, of the method's output.
        scale: the loss that backward starts from (a gradient scaler's ``scale``); None: the loss itself.
        autocast: makes the context in which the forward pass runs.
        recorder: what records; default CUDA graphs.
        max_patterns: recordings to keep; each holds its output and a description of its kernels.
    """

    def __init__(
        self,
        method: Method,
        loss: Callable[[MethodOutput], Tensor],
        scale: Callable[[Tensor], Tensor] | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        recorder: Recorder | None = None,
        max_patterns: int = 32,
    ) -> None:
        self.method = method
        self.loss = loss
        self.scale = scale
        self.autocast = autocast
        self.max_patterns = max_patterns
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        self.recorder = recorder
        self.patterns: dict[Hashable, _Pattern] = {}
        self._gradients: list[Tensor] | None = None

    @property
    def recorded(self) -> int:
        """How many patterns are replayed by now."""
        return sum(pattern.replay is not None for pattern in self.patterns.values())

    def __call__(self, batch: Mapping[str, Tensor], pattern: Hashable) -> StepResult:
        """One step: gradients replace those in the parameters.

        Args:
            batch: ``image``, ``modality_mask``, ``present_mask``, ``label`` on the method's device.
            pattern: the masks as the host knows them; equal only where both masks are. Labels must have been checked.
        """
        course = self.method.course()
        key = (pattern, course, *((name, tuple(t.shape), t.dtype) for name, t in batch.items()))
        known = self.patterns.setdefault(key, _Pattern())
        if course is None or known.eager:
            return self._eager(batch, None)
        if known.replay is not None and known.addresses == self._addresses():
            return self._replay(known, batch)
        if known.decisions is None:
            return self._first(known, batch)
        if known.replay is None and self.recorded >= self.max_patterns:
            return self._eager(batch, None)
        return self._record(known, batch)

    def _first(self, known: _Pattern, batch: Mapping[str, Tensor]) -> StepResult:
        decisions = MaskDecisions((batch["modality_mask"], batch["present_mask"]))
        undo = self._undo()
        try:
            result = self._eager(batch, decisions)
        except CannotRecordError as error:
            known.eager = True
            _log.warning("steps are not recorded, which costs speed on a GPU: %s", error)
            undo()
            return self._eager(batch, None)
        known.decisions = decisions
        return result

    def _record(self, known: _Pattern, batch: Mapping[str, Tensor]) -> StepResult:
        assert known.decisions is not None
        static = {name: tensor.detach().clone() for name, tensor in batch.items()}
        decisions = MaskDecisions((static["modality_mask"], static["present_mask"]))
        decisions.answers = known.decisions.answers
        self._own_gradients()

        def run() -> tuple[StepResult, list[bool]]:
            with fixed_course(), decisions.replaying():
                result, gradients = self._compute(static)
            self._keep(gradients)
            return result, [g is not None for g in gradients]

        addresses = self._addresses()
        if self.recorder is None:  # only now is the method where it computes
            self.recorder = CudaGraphs(self.parameters[0].device)
        try:
            (known.result, known.used), known.replay = self.recorder(run)
        except RuntimeError as error:
            known.eager, known.replay = True, None
            _log.warning("steps are not recorded, which costs speed on a GPU: %s", error)
            return self._eager(batch, None)
        known.static, known.addresses = static, addresses
        return self._replay(known, batch)

    def _replay(self, known: _Pattern, batch: Mapping[str, Tensor]) -> StepResult:
        assert known.static is not None
        assert known.replay is not None
        assert known.result is not None
        for name, tensor in batch.items():
            known.static[name].copy_(tensor, non_blocking=True)
        known.replay()
        self._hand_out(known.used or [])
        output, loss = known.result
        # the next replay writes to the same memory, and handlers may keep what they are given
        return StepResult(
            MethodOutput(
                output.pred.clone(),
                {name: value.clone() for name, value in output.losses.items()},
                {name: value.clone() for name, value in output.per_modality.items()},
            ),
            loss.clone(),
        )

    def _eager(self, batch: Mapping[str, Tensor], decisions: MaskDecisions | None) -> StepResult:
        with fixed_course() if self.method.course() is not None else nullcontext():
            result, gradients = self._compute(batch, decisions)
        self._own_gradients()
        self._keep(gradients)
        self._hand_out([g is not None for g in gradients])
        return result

    def _compute(
        self, batch: Mapping[str, Tensor], decisions: MaskDecisions | None = None
    ) -> tuple[StepResult, list[Tensor | None]]:
        with self.autocast(), decisions.recording() if decisions is not None else nullcontext():
            output: MethodOutput = self.method(**batch)
            loss = self.loss(output)
        pred = output.pred.detach()
        losses = {name: value.detach() for name, value in output.losses.items()}
        result = StepResult(MethodOutput(pred, losses, output.per_modality), loss.detach())
        target = loss if self.scale is None else self.scale(loss)
        del output, loss  # feature maps that no gradient needs are freed before backward
        return result, list(torch.autograd.grad(target, self.parameters, allow_unused=True))

    def _undo(self) -> Callable[[], None]:
        """What takes back a step that broke off: random numbers and state are as if it had not begun."""
        device = self.parameters[0].device
        random, state = torch.get_rng_state(), [(buffer, buffer.clone()) for buffer in self.method.buffers()]
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

        def undo() -> None:
            torch.set_rng_state(random)
            if on_device is not None:
                torch.cuda.set_rng_state(on_device, device)
            for buffer, value in state:
                buffer.copy_(value)

        return undo

    def _own_gradients(self) -> None:
        if self._gradients is None:
            self._gradients = [torch.zeros_like(p) for p in self.parameters]

    def _keep(self, gradients: list[Tensor | None]) -> None:
        """Copy to memory that all patterns share; a recording must always write to the same."""
        assert self._gradients is not None
        pairs = [(own, new) for own, new in zip(self._gradients, gradients, strict=True) if new is not None]
        torch._foreach_copy_([own for own, _ in pairs], [new for _, new in pairs])

    def _hand_out(self, used: list[bool]) -> None:
        """Gradients into the parameters; one that was not used is zero if it ever was, as after ``zero_grad``."""
        assert self._gradients is not None
        for parameter, gradient, has in zip(self.parameters, self._gradients, used, strict=True):
            if has:
                parameter.grad = gradient
            elif parameter.grad is not None:
                gradient.zero_()
                parameter.grad = gradient

    def _addresses(self) -> tuple[int, ...]:
        """Where weights and state lie: a recording is void when one of them was replaced."""
        tensors = [*self.method.parameters(), *self.method.buffers()]
        return tuple(tensor.data_ptr() for tensor in tensors)
