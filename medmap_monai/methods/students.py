"""Single-modality ("student") paths through the shared fused decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from monai.utils import StrEnum, look_up_option
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.features import DecoderOutput, ModalityFeatures
from medmap_monai.utils.fixed_course import data_may_decide, fixed_course, refuse_recording

#: bytes per voxel and finest channel that a student keeps for backward in float32: RFNet's whole PASSION step with four
#: students of 8 channels at 80^3 takes 6.0 GiB on a GPU, hence at most this
STUDENT_BYTES = 400


class StudentMode(StrEnum):
    """How students run; the numbers are the same apart from the random numbers that dropout draws."""

    AUTO = "auto"  # batched, except where a CPU's memory traffic would outweigh it
    BATCHED = "batched"  # all as one batch: fewest calls
    SEQUENTIAL = "sequential"  # one modality after the other: smaller temporaries
    CHECKPOINT = "checkpoint"  # likewise, and all but the last are computed again in backward: least memory


class StudentRows(NamedTuple):
    """Decoder outputs of students: one row per (sample, modality) pair.

    output: the decoder output, R rows; of ``features`` the finest only, and no ``fused``.
    sample: (R,) index of the batch row that each student belongs to.
    modality: (R,) index of the one modality that it sees.
    """

    output: DecoderOutput
    sample: Tensor
    modality: Tensor


def map_students(
    network: ModalityNetwork,
    features: ModalityFeatures,
    student_mask: Tensor,
    use: Callable[[DecoderOutput, Tensor], Sequence[Tensor]],
    mode: str = StudentMode.AUTO,
    visible: Tensor | None = None,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Decode students and reduce each one's output to what ``use`` keeps of it.

    With ``mode="checkpoint"`` decoding and ``use`` are computed again in backward, so that the graph of only one
    modality's students is in memory at a time.

    Args:
        network: the network whose fused decoder the students share.
        features: features of :meth:`ModalityNetwork.encode`, B rows; prepared features are reused.
        student_mask: bool (B, M), the (sample, modality) pairs to decode.
        use: ``use(output, sample)`` for R students, with ``sample`` (R,) the batch row of each; returns tensors whose
            first axis is R.
        mode: see :class:`StudentMode`.
        visible: bool (B, M), what the fused path sees; only the published student paths of some backbones look at it
            (:meth:`ModalityNetwork.decode_student`). None means ``student_mask``.

    Returns:
        the tensors of ``use`` for all students, and ``sample`` and ``modality`` (R,) of each.

    Raises:
        ValueError: when ``student_mask`` is False everywhere, or for an unknown mode.
    """
    how = look_up_option(mode, StudentMode)
    sample, modality = torch.nonzero(student_mask, as_tuple=True)
    if sample.numel() == 0:
        raise ValueError("student_mask is False everywhere: no student can be decoded")
    chunks = [(sample, modality)]
    if how == StudentMode.AUTO:
        how = fastest_mode(features.pyramid[0], sample.numel())
    if how != StudentMode.BATCHED:
        order = torch.argsort(modality, stable=True)
        sizes = student_mask.sum(0).tolist()
        pairs = zip(sample[order].split(sizes), modality[order].split(sizes), strict=True)
        chunks = [(s, m) for s, m in pairs if s.numel() > 0]

    fused_sees = student_mask if visible is None else visible
    fixed = not data_may_decide()

    def run(rows: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
        with fixed_course() if fixed else nullcontext():  # backward on a GPU has a thread, hence a context, of its own
            return tuple(use(network.decode_student(features, rows, seen, fused_sees), rows))

    # the last one comes first in backward, and its memory is free again when the others are computed anew
    again = len(chunks) - 1 if how == StudentMode.CHECKPOINT and torch.is_grad_enabled() else 0
    if again:
        refuse_recording("students are computed again in backward, to save memory (students: checkpoint)")
    parts = [checkpoint(run, s, m, use_reentrant=False) for s, m in chunks[:again]]
    parts += [run(s, m) for s, m in chunks[again:]]
    results = list(parts[0]) if len(parts) == 1 else [torch.cat(values) for values in zip(*parts, strict=True)]
    return results, torch.cat([s for s, _ in chunks]), torch.cat([m for _, m in chunks])


def fastest_mode(finest: Tensor, rows: int) -> StudentMode:
    """Batched, where that is fastest and fits.

    On one CPU thread batched is 10-20 % faster at 32^3 with four students and 15 % slower at 80^3. On a GPU it is the
    fewest kernels; where all students together would need more than half of the device's memory, they are computed
    one after the other and again in backward. The device's size decides, not what is free at the moment: a step must
    take the same course every time.
    """
    voxels = rows * finest.shape[3:].numel()
    if finest.device.type == "cpu":
        return StudentMode.SEQUENTIAL if voxels > 2**20 else StudentMode.BATCHED
    if finest.device.type != "cuda" or not torch.is_grad_enabled():
        return StudentMode.BATCHED
    need = voxels * finest.shape[2] * STUDENT_BYTES * finest.element_size() / 4
    memory = torch.cuda.get_device_properties(finest.device).total_memory
    return StudentMode.CHECKPOINT if need > memory / 2 else StudentMode.BATCHED


def decode_students(
    network: ModalityNetwork,
    features: ModalityFeatures,
    present_mask: Tensor,
    mode: str = StudentMode.AUTO,
    visible: Tensor | None = None,
) -> StudentRows:
    """Decode each present modality alone; absent modalities cost nothing.

    Args:
        network: the network whose fused decoder the students share.
        features: features of :meth:`ModalityNetwork.encode`, B rows; prepared features are reused.
        present_mask: bool (B, M), the (sample, modality) pairs to decode.
        mode: see :class:`StudentMode`.
        visible: see :func:`map_students`.

    Raises:
        ValueError: when ``present_mask`` is False everywhere, or for an unknown mode.
    """

    def keep(output: DecoderOutput, _: Tensor) -> list[Tensor]:
        return [output.logits, *output.features[:1], *output.deep_logits]

    (logits, finest, *deep), sample, modality = map_students(network, features, present_mask, keep, mode, visible)
    return StudentRows(DecoderOutput(logits, deep, [finest], []), sample, modality)
