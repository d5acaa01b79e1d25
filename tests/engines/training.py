"""A tiny training run for the tests of engines: synthetic tensors, a real network, method, trainer and handlers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader, DistributedSampler
from monai.handlers import LrScheduleHandler
from monai.losses import DiceCELoss
from monai.transforms import Compose, RandFlipd
from torch.optim.lr_scheduler import PolynomialLR

from medmap_monai.data.seeded_dataset import SeededCacheDataset
from medmap_monai.engines.trainer import ModalityTrainer
from medmap_monai.engines.training_checkpoint import TrainingCheckpoint
from medmap_monai.engines.training_log import TrainingLog
from medmap_monai.methods.base import Method
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.unet import ModalityUNet
from medmap_monai.transforms.modality_dropout import RandModalityDropoutd

SIZE = 8


def tiny_unet(spatial_dims: int = 2, modalities: int = 3, classes: int = 3) -> ModalityUNet:
    """A small 2-D network."""
    return ModalityUNet(spatial_dims, modalities, classes, channels=(4, 8), deep_supervision=0)


def tiny_method(network: ModalityNetwork) -> Method:
    """The baseline around ``network``."""
    return ModalityDropoutBaseline(network, DiceCELoss(to_onehot_y=True, softmax=True, batch=True))


def tiny_items(count: int = 6, modalities: int = 3, classes: int = 3) -> list[dict[str, Any]]:
    """Samples with every modality present, as after the deterministic transforms."""
    generator = torch.Generator().manual_seed(7)
    mask = torch.ones(modalities, dtype=torch.bool)
    return [
        {
            "image": torch.randn(modalities, SIZE, SIZE, generator=generator),
            "label": torch.randint(0, classes, (1, SIZE, SIZE), generator=generator),
            "present_mask": mask.clone(),
            "modality_mask": mask.clone(),
        }
        for _ in range(count)
    ]


def tiny_trainer(
    folder: Path,
    epochs: int = 3,
    make_method: Callable[[ModalityNetwork], Method] = tiny_method,
    workers: int = 0,
    device: str = "cpu",
    handlers: tuple[Any, ...] = (),
    first: tuple[Any, ...] = (),
    checkpoint: dict[str, Any] | None = None,
    batch_size: int = 2,
    learning_rate: float = 1e-2,
    **kwargs: Any,
) -> ModalityTrainer:
    """A trainer that logs and checkpoints into ``folder``; initial weights are always the same."""
    torch.manual_seed(0)
    network = tiny_unet()
    method = make_method(network).to(device)
    transform = Compose([RandFlipd(("image", "label"), prob=0.5, spatial_axis=0), RandModalityDropoutd()])
    dataset = SeededCacheDataset(tiny_items(), transform, seed=3)
    sampler = DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=3)
    loader = DataLoader(dataset, sampler=sampler, batch_size=batch_size, num_workers=workers)
    optimizer = torch.optim.AdamW(method.parameter_groups(), lr=learning_rate)
    scheduler = PolynomialLR(optimizer, total_iters=epochs, power=0.9)
    objects = {"method": method, "optimizer": optimizer, "lr_scheduler": scheduler}
    return ModalityTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=loader,
        network=method,
        optimizer=optimizer,
        seed=5,
        train_handlers=[
            *first,
            TrainingLog(folder / "training.csv", optimizer),
            LrScheduleHandler(scheduler, print_lr=False),
            TrainingCheckpoint(folder, network, objects, **(checkpoint or {})),
            *handlers,
        ],
        **kwargs,
    )
