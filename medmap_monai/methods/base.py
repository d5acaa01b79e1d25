"""The method contract: a network, the training-only heads and the losses, in one module."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.optim import Optimizer

from medmap_monai.methods.idle_parameters import tie_parameters
from medmap_monai.methods.masks import check_masks
from medmap_monai.networks.base import ModalityFeatures, ModalityNetwork


class MethodOutput(NamedTuple):
    """What a training step needs and reports.

    pred: fused logits (B, K, ...).
    losses: scalars that the trainer sums (with its ``loss_weights``) and logs, by name.
    per_modality: values (M,) to log per modality, by name; detached, NaN where a modality was not seen.
    """

    pred: Tensor
    losses: dict[str, Tensor]
    per_modality: dict[str, Tensor]


class Method(nn.Module):
    """A training composition around a network.

    The trainer calls the module on batches, :meth:`on_epoch_start` and :meth:`on_epoch_end` around epochs (epochs
    count from 0; ranks are synchronised by the method itself), and, between backward and the optimiser step,
    :meth:`after_backward`. Balancing state lives in buffers, so a checkpoint restores it exactly. Under DDP the
    buffers are not broadcast (``broadcast_buffers=False``).

    Args:
        network: the network that is deployed; ``models/model.pt`` holds its weights alone.
    """

    def __init__(self, network: ModalityNetwork) -> None:
        super().__init__()
        self.network = network
        self.register_load_state_dict_pre_hook(_accept_network_weights)

    def forward(self, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor) -> MethodOutput:
        """One training step: check the masks, encode once, then :meth:`step`.

        In training every parameter takes part in the losses, with gradient zero where the step did not use it.

        Args:
            image: (B, M, ...).
            modality_mask: bool (B, M), what the fused path may see: something, and no more than is present.
            present_mask: bool (B, M), what exists for the case.
            label: class indices (B, 1, ...).

        Raises:
            ValueError: for masks that :func:`~medmap_monai.methods.masks.check_masks` refuses.
        """
        # metadata has no use here; carried along, it slows every operation and would end up in buffers
        image, modality_mask, present_mask, label = map(_plain, (image, modality_mask, present_mask, label))
        modality_mask = modality_mask.to(device=image.device, dtype=torch.bool)
        present_mask = present_mask.to(device=image.device, dtype=torch.bool)
        check_masks(modality_mask, present_mask)
        seen = self.needed_modalities(modality_mask, present_mask)
        features = self.network.prepare(self.network.encode(image, seen))
        output = self.step(features, image, modality_mask, present_mask, label)
        if not (self.training and torch.is_grad_enabled()):
            return output
        name = next(iter(output.losses))
        return output._replace(losses={**output.losses, name: tie_parameters(output.losses[name], self.parameters())})

    def needed_modalities(self, modality_mask: Tensor, present_mask: Tensor) -> Tensor:
        """Which modalities :meth:`step` looks at, bool (B, M): all present ones unless a method says less."""
        return present_mask

    def step(
        self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
    ) -> MethodOutput:
        """The losses of one batch whose features are encoded already.

        Apart from encoding so that methods compose: one that only adds a term on the features (MedMAP) wraps another
        method and hands the same features on.

        Args:
            features: prepared features of ``image`` under ``present_mask``.
            image: as in :meth:`forward`, for methods with a second network.
            modality_mask: as in :meth:`forward`.
            present_mask: as in :meth:`forward`.
            label: as in :meth:`forward`.

        Raises:
            NotImplementedError: for a method that overrides :meth:`forward` instead; it works on its own and cannot
                be wrapped.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement step")

    def course(self) -> Hashable | None:
        """What decides, besides shapes and masks, which operations a training step consists of.

        A step may be recorded and replayed for batches with equal masks while this value stays the same
        (:class:`~medmap_monai.engines.captured_step.CapturedStep`). None, the default: it may not be. A method that
        returns a value promises that everything else that changes between steps lies in its parameters and buffers
        and is changed in place, and asks :func:`~medmap_monai.utils.fixed_course.data_may_decide` before it looks at
        values of a batch.
        """
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for an optimiser; one of all parameters unless a method needs others."""
        return [{"params": list(self.parameters())}]

    def attach_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Called once by the trainer with the optimiser that will step, for a method that has a part in its steps.

        Returns:
            the optimiser.
        """
        return optimizer

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first batch of epoch ``epoch`` (from 0)."""

    def after_backward(self) -> None:
        """Called when gradients are complete (unscaled, all-reduced) and before clipping and the optimiser step."""

    def on_epoch_end(self, epoch: int) -> None:
        """Called after the last batch of epoch ``epoch`` (from 0); the place for epoch-wise balancing."""


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def _accept_network_weights(
    method: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any, _strict: bool, *reports: list[str]
) -> None:
    """Let weights of the network alone (``models/model.pt``) be loaded into the method around it.

    MONAI's ``CheckpointLoader({"model": @network})``, which MONAI Label puts into a training, loads without strictness:
    names that lack the method's ``network.`` would leave every tensor as it was, without a word. Weights of which
    nothing fits are an error for the same reason.
    """
    if prefix or not state or any(name.startswith("network.") for name in state):
        return
    network = method.network
    assert isinstance(network, nn.Module)
    known = set(network.state_dict())
    fitting = [name for name in state if name in known]
    for name in fitting:
        state[f"network.{name}"] = state.pop(name)
    if not fitting and not set(state) & set(method.state_dict()):
        reports[-1].append(
            f"none of {len(state)} tensors belongs to {type(method).__name__}, first {next(iter(state))}"
        )
