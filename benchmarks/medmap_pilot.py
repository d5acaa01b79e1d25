"""Pilot of MedMAP's choices on tiny phantoms: minutes on one CPU core, hints and no benchmark.

    python benchmarks/medmap_pilot.py --output pilot.csv --seeds 0 1 --settings none L0 L0-full

Every run of a seed starts from the same weights and sees the same cases, order, subsets and augmentation. One row per
run: Dice (%) over subsets, the modality gap per level, effective rank and spatial deviation of the features.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch import Tensor

from medmap_monai.data.phantom_brain import brain_phantom
from medmap_monai.losses.alignment import AlignmentLoss
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.methods.medmap import MedMAP
from medmap_monai.metrics.effective_rank import effective_rank, spatial_sd
from medmap_monai.metrics.modality_gap import modality_gap
from medmap_monai.modalities import BRATS
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityFeatures
from medmap_monai.networks.unet import ModalityUNet

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
ALL = [0, 1, 2, 3]
FIRST: dict[str, Any] = {"levels": [0], "training_source": "available"}
# name: (AlignedNetwork arguments, weight, AlignmentLoss arguments)
SETTINGS: dict[str, tuple[dict[str, Any], float, dict[str, Any]]] = {
    "none": ({"anchor": "none"}, 0.0, {}),
    "L0": ({**FIRST}, 1.0, {}),
    "L0-full": ({**FIRST, "training_source": "full"}, 1.0, {}),
    "L0-align-only": ({**FIRST, "replace_levels": []}, 1.0, {}),
    "L0-0.1": ({**FIRST}, 0.1, {}),
    "L0-detach": ({**FIRST, "detach_anchor": True}, 1.0, {}),
    "L0-gaussian": ({**FIRST}, 1.0, {"form": "gaussian_kl"}),
    "L0-relative": ({**FIRST}, 1.0, {"form": "relative"}),
    "deep-relative": ({"levels": [-1]}, 1.0, {"form": "relative"}),
    "all-relative": ({"levels": ALL}, 1.0, {"form": "relative"}),
    "all-relative-0.1": ({"levels": ALL}, 0.1, {"form": "relative"}),
    "L0-normal": ({**FIRST, "anchor": "normal"}, 1.0, {}),
    "L0-t1ce": ({**FIRST, "anchor": "fixed", "weights": 1}, 1.0, {}),
    "L0-uniform": ({**FIRST, "anchor": "fixed", "weights": "uniform"}, 1.0, {}),
    "deep": ({"levels": [-1]}, 1.0, {}),
    "deep-align-only": ({"levels": [-1], "replace_levels": []}, 1.0, {}),
    "deep-0.1": ({"levels": [-1]}, 0.1, {}),
    "deep-full": ({"levels": [-1], "training_source": "full"}, 1.0, {}),
    "deep-gaussian": ({"levels": [-1]}, 1.0, {"form": "gaussian_kl"}),
    "all": ({"levels": ALL}, 1.0, {}),
    "all-0.1": ({"levels": ALL}, 0.1, {}),
    "all-align-only": ({"levels": ALL, "replace_levels": []}, 1.0, {}),
    "all-align-only-0.1": ({"levels": ALL, "replace_levels": []}, 0.1, {}),
    "replace-only": ({"levels": ALL}, 0.0, {}),
    "L0-replace-only": ({**FIRST}, 0.0, {}),
}


def cohort(first: int, cases: int, size: int) -> tuple[Tensor, Tensor]:
    """Images (N, 4, ...), each modality z-scored over the brain, and labels (N, 1, ...)."""
    images, labels = [], []
    for number in range(first, first + cases):
        case = brain_phantom((size,) * 3, (20, number))
        channels = []
        for name in BRATS:
            values = np.asarray(case.images[name], dtype=np.float32)
            brain = values > 0
            channels.append(np.where(brain, (values - values[brain].mean()) / values[brain].std(), 0.0))
        images.append(np.stack(channels))
        labels.append(case.label[None])
    return torch.from_numpy(np.stack(images)).float(), torch.from_numpy(np.stack(labels)).long()


def augment(image: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Flips, and scale and shift of intensities inside the brain."""
    axes = [axis for axis in (2, 3, 4) if rng.random() < 0.5]
    image, label = image.flip(axes), label.flip(axes)
    shape = (*image.shape[:2], 1, 1, 1)
    scale = torch.from_numpy(rng.uniform(0.9, 1.1, shape)).float()
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, shape)).float()
    return torch.where(image != 0, image * scale + shift, image), label


def train(
    method: MedMAP, images: Tensor, labels: Tensor, seed: int, steps: int, batch: int, learning_rate: float
) -> None:
    rng = np.random.default_rng(seed)
    masks = torch.tensor(BRATS.subset_masks())
    optimizer = torch.optim.AdamW(method.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * (1 - step / steps) ** 0.9
    )
    method.train()
    for _ in range(steps):
        rows = rng.choice(len(images), batch, replace=False)
        image, label = augment(images[rows], labels[rows], rng)
        visible = masks[rng.integers(0, len(masks), batch)]
        losses = method(image, visible, torch.ones_like(visible), label).losses
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 5.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def evaluate(network: AlignedNetwork, images: Tensor, labels: Tensor, batch: int = 8) -> dict[str, float]:
    """Mean Dice by group of subsets and region; gap, rank and deviation per level over brain voxels."""
    network.eval()
    scores = np.zeros((len(BRATS.subset_masks()), len(REGIONS)))
    kept: list[list[Tensor]] = []
    for start in range(0, len(images), batch):
        image, label = images[start : start + batch], labels[start : start + batch, 0]
        everything = torch.ones(len(image), len(BRATS), dtype=torch.bool)
        features = network.prepare(network.encode(image, everything))
        if start == 0:
            kept = brain_features(features, image)
        for s, mask in enumerate(BRATS.subset_masks()):
            predicted = network.decode(features, torch.tensor(mask).expand_as(everything)).logits.argmax(dim=1)
            for r, classes in enumerate(REGIONS.values()):
                p, t = torch.isin(predicted, torch.tensor(classes)), torch.isin(label, torch.tensor(classes))
                total = (p.sum((1, 2, 3)) + t.sum((1, 2, 3))).float()
                dice = 2 * (p & t).sum((1, 2, 3)) / total
                scores[s, r] += float(torch.where(total > 0, dice, 1.0).sum())
    scores *= 100 / len(images)
    sizes = np.array([sum(mask) for mask in BRATS.subset_masks()])
    groups = {"all15": sizes > 0, "few10": sizes <= 2, "single4": sizes == 1, "full": sizes == len(BRATS)}
    out = {f"{group}_mean": float(scores[rows].mean()) for group, rows in groups.items()}
    for group, rows in groups.items():
        out.update({f"{group}_{name}": float(scores[rows, r].mean()) for r, name in enumerate(REGIONS)})
    for level, maps in enumerate(kept):
        gap = modality_gap(torch.stack(maps))
        out.update({f"cka_{level}": gap.cka, f"centroid_{level}": gap.centroid_distance})
        out[f"voxel_{level}"] = gap.voxel_distance
        out[f"rank_{level}"] = float(np.mean([effective_rank(m) for m in maps]))
        out[f"sd_{level}"] = float(np.mean([spatial_sd(m) for m in maps]))
    return out


def brain_features(features: ModalityFeatures, image: Tensor) -> list[list[Tensor]]:
    """Per level and modality: features (n, C) at the positions inside the brain."""
    out = []
    brain = (image != 0).any(dim=1, keepdim=True).float()
    for level in features.pyramid:
        inside = torch.nn.functional.interpolate(brain, size=level.shape[3:], mode="nearest")[:, 0] > 0
        out.append([level[:, m].movedim(1, -1)[inside] for m in range(level.shape[1])])
    return out


def run(name: str, seed: int, data: tuple[Tensor, ...], options: argparse.Namespace) -> dict[str, Any]:
    network_arguments, weight, loss_arguments = SETTINGS[name]
    torch.manual_seed(seed)
    unet = ModalityUNet(
        3, len(BRATS), 4, channels=(8, 16, 32, 64), deep_supervision=2
    )  # first: the same in each setting
    network = AlignedNetwork(unet, **network_arguments)
    loss = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=torch.tensor([0.3, 1.0, 1.0, 1.0])
    )
    base = ModalityDropoutBaseline(network, loss, modality_weight=0.0)
    method = MedMAP(base, weight, AlignmentLoss(**loss_arguments))
    start = time.process_time()
    train(method, data[0], data[1], seed, options.steps, options.batch, options.learning_rate)
    middle = time.process_time()
    row = {"setting": name, "seed": seed, **evaluate(network, data[2], data[3])}
    row.update(train_cpu_s=middle - start, evaluate_cpu_s=time.process_time() - middle)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="CSV file; rows are appended")
    parser.add_argument("--settings", nargs="+", default=["none", "L0", "deep", "all"], choices=sorted(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--size", type=int, default=24, help="voxels per axis")
    parser.add_argument("--train-cases", type=int, default=48)
    parser.add_argument("--test-cases", type=int, default=48)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_data = cohort(0, options.train_cases, options.size)
    test_data = cohort(10_000, options.test_cases, options.size)
    for seed in options.seeds:
        for name in options.settings:
            row = run(name, seed, (*train_data, *test_data), options)
            new = not options.output.is_file()
            with options.output.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row))
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(f"{name} seed {seed}: all15 {row['all15_mean']:.1f} few10 {row['few10_mean']:.1f}", flush=True)


if __name__ == "__main__":
    main()
