"""A training step of every method x network x documented option in two processes (started by test_every_option)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from monai.losses import DiceCELoss
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from medmap_monai.methods.base import Method
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.methods.dmaf import DMAF
from medmap_monai.methods.domain_adaptation import DomainAdaptation
from medmap_monai.methods.knowledge_distillation import KnowledgeDistillation, TeacherTraining
from medmap_monai.methods.medmap import MedMAP
from medmap_monai.methods.passion import Passion
from medmap_monai.methods.preference_balance import PreferenceBalance
from medmap_monai.methods.subset_students import SubsetStudents
from medmap_monai.methods.training_monitor import DynamicTrainingMonitor
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.dmafnet import DMAFNet
from medmap_monai.networks.early_fusion_unet import EarlyFusionUNet
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet
from medmap_monai.networks.unet import ModalityUNet

MODALITIES, CLASSES, SIZE = 3, 3, 8
SMALL = {"base_width": 4, "levels": 3}
TOKENS = {**SMALL, "heads": 2, "mlp_width": 8, "position_size": 2, "transformer_layers": 1}
Make = Callable[[], ModalityNetwork]


def unet() -> ModalityNetwork:
    return ModalityUNet(2, MODALITIES, CLASSES, channels=(4, 4, 8), deep_supervision=1)


def rfnet() -> ModalityNetwork:
    return RFNet(2, MODALITIES, CLASSES, mlp_width=8, **SMALL)


def mmformer() -> ModalityNetwork:
    return MMFormer(2, MODALITIES, CLASSES, token_width=8, **TOKENS)


NETWORKS: dict[str, Make] = {
    "unet": unet,
    "unet without deep heads": lambda: ModalityUNet(2, MODALITIES, CLASSES, channels=(4, 8), deep_supervision=0),
    "early_fusion_unet": lambda: EarlyFusionUNet(2, MODALITIES, CLASSES, channels=(4, 8), deep_supervision=0),
    "dmafnet": lambda: DMAFNet(2, MODALITIES, CLASSES, channels=(4, 8), deep_supervision=0, dmaf={"depth": 1}),
    "rfnet": rfnet,
    "mmformer": mmformer,
    "m2ftrans": lambda: M2FTrans(2, MODALITIES, CLASSES, **TOKENS),
    "aligned unet": lambda: AlignedNetwork(unet(), levels=[0, -1]),
    "aligned rfnet, full": lambda: AlignedNetwork(rfnet(), training_source="full", levels=[0]),
    "aligned mmformer": lambda: AlignedNetwork(mmformer()),
    "aligned unet, normal": lambda: AlignedNetwork(unet(), "normal", learn_normal=True),
    "aligned rfnet, without replacement": lambda: AlignedNetwork(rfnet(), replace_levels=[]),
}


def methods(make: Make) -> Iterator[tuple[str, Callable[[], Method]]]:
    """Every method and option on the network of ``make``; what they refuse is not among them."""
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    probe = make()
    unimodal = probe.has_unimodal_decoder
    deepest = probe.prepare(probe.encode(torch.ones(1, MODALITIES, SIZE, SIZE)))
    fused = probe.decode(deepest, torch.ones(1, MODALITIES, dtype=torch.bool)).fused
    own = deepest.pyramid[-1][:, 0].shape
    if isinstance(probe, AlignedNetwork):
        yield from aligned(make, loss)
        return
    for options in ({}, {"deep_weight": 0}, {"modality_weight": 0}):
        yield f"baseline {options}", lambda o=options: ModalityDropoutBaseline(make(), loss, **o)
    for options in (
        {},
        {"mode": "pdt"},
        {"mode": "idt_drop"},
        {"unimodal": "off"},
        {"unimodal": "student"},
        *([{"unimodal": "decoder"}] if unimodal else []),
        {"students": "sequential"},
        {"students": "checkpoint"},
        {"weights": {"pixel": 0}},
        {"weights": {"prototype": 0, "deep": 0}},
    ):
        yield f"passion {options}", lambda o=options: Passion(make(), **{"modality_weight": [1.0] * MODALITIES, **o})
    if unimodal:
        for balance in ({"warmup_epochs": 1}, {"gate": "off"}, {"gate": "rp_positive"}):
            yield (
                f"passion {balance}",
                lambda b=balance: Passion(make(), "pdt", balance=PreferenceBalance(MODALITIES, **b)),
            )
    for options in ({}, {"deep_weight": 0}, {"consistency_weight": 0}):
        yield f"subset students {options}", lambda o=options: SubsetStudents(make(), loss, **o)
    yield "teacher", lambda: TeacherTraining(make(), loss)
    for options in ({}, {"subset": [True, False, True]}):
        if fused:
            yield f"distillation {options}", lambda o=options: KnowledgeDistillation(make(), make(), loss, **o)
    for options in ({}, {"deep_weight": 0}, {"detach_full": True}, {"adversarial_weight": 0.1}):
        if fused:
            channels = {"discriminator_channels": fused[-1].shape[1]} if "adversarial_weight" in options else {}
            yield f"adaptation {options}", lambda o=options | channels: DomainAdaptation(make(), loss, **o)
    if fused:
        yield "adaptation, network of its own", lambda: DomainAdaptation(make(), loss, make())
    if fused and fused[-1].shape == own:
        for weights in ({}, {"modality": 0}, {"deep": 0}, {"pixel": 0.1}, {"attention": 0}):
            yield f"dmaf {weights}", lambda w=weights: DMAF(make(), weights=w)
        for mode in ("lr", "off"):
            monitor = {"modalities": MODALITIES, "grad_mode": mode}
            yield f"dmaf {mode}", lambda m=monitor: DMAF(make(), monitor=DynamicTrainingMonitor(**m))


def aligned(make: Make, loss: Callable[[Tensor, Tensor], Tensor]) -> Iterator[tuple[str, Callable[[], Method]]]:
    """MedMAP and what it may wrap, on an aligned network."""
    omega = [1.0] * MODALITIES
    yield "baseline", lambda: ModalityDropoutBaseline(make(), loss)
    yield "passion, student", lambda: Passion(make(), modality_weight=omega, unimodal="student")
    yield "medmap, baseline", lambda: MedMAP(ModalityDropoutBaseline(make(), loss, modality_weight=0))
    yield "medmap, passion", lambda: MedMAP(Passion(make(), modality_weight=omega, students="checkpoint"))
    yield "medmap, teacher", lambda: MedMAP(TeacherTraining(make(), loss))
    yield "medmap, distillation", lambda: MedMAP(KnowledgeDistillation(make(), make(), loss))
    yield "medmap, adaptation", lambda: MedMAP(DomainAdaptation(make(), loss))


def step(build: Callable[[], Method], rank: int) -> str:
    """What is wrong with a step of a method, each process with other modalities; empty when nothing is."""
    torch.manual_seed(0)
    method = build().train()
    method.on_epoch_start(0)
    wrapped = DistributedDataParallel(method, broadcast_buffers=False)
    image = torch.randn(2, MODALITIES, SIZE, SIZE, generator=torch.Generator().manual_seed(rank))
    label = (image[:, :1] > 0).long() + (image[:, :1] > 1).long()
    present = torch.tensor([[True, rank == 1, False], [rank == 0, False, True]])
    visible = present & torch.tensor([[True, False, False], [True, True, True]])
    output = wrapped(image * present[:, :, None, None], visible, present, label)
    torch.stack(list(output.losses.values())).sum().backward()
    missing = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    if missing:
        return f"no gradient in {missing}"
    gradient = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
    if not bool(gradient.isfinite().all()):
        return "gradients are not finite"
    other = gradient.clone()
    dist.broadcast(other, 0)
    if not torch.equal(other, gradient):
        return "the processes have different gradients"
    # an unfinished reduction is noticed here, as in the next step
    wrapped.reducer._rebuild_buckets()  # type: ignore[attr-defined]
    return "" if bool(gradient.any()) else "all gradients are zero"


def main(path: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    torch.set_num_threads(1)
    rank, results = dist.get_rank(), {}
    for network, make in NETWORKS.items():
        for name, build in methods(make):
            try:
                results[f"{network}: {name}"] = step(build, rank)
            except Exception as error:
                results[f"{network}: {name}"] = f"{type(error).__name__}: {error}"
    everyone: list[dict[str, str]] = [{}, {}]
    dist.all_gather_object(everyone, results)
    if rank == 0:
        Path(path).write_text(json.dumps(everyone))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
