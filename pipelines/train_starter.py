"""Train a network on endless synthetic studies within a time limit: how the weights of brats_starter were made.

The bundle's own `run training` does the same with MONAI's trainer; this script is for a machine with one GPU for a few
minutes. Worker processes make studies, a pool on the device keeps the newest, training draws from the pool.

    python pipelines/train_starter.py --anatomy FOLDER --output OUT --seconds 600 --batch 8 \\
        --modality-weight 0 --singles 0.22 0.28 0.30 0.20 --compile

Windows and few subsets in a batch (absent modalities cost nothing) help, on a CPU also a bounded number of new studies:

    python pipelines/train_starter.py --anatomy FOLDER --output OUT --start models/model.pt --seconds 6000 --batch 2 \\
        --window 56 64 56 --subsets 1 --new-per-step 1 --modality-weight 0 --rates 0.75 0.5 0.5 0.75 \\
        --lr 1e-3 --average 0.995 --mix 0.5
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.transforms import NormalizeIntensity
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from medmap_monai.data.seeded_dataset import item_seed
from medmap_monai.losses.deep_supervision import deep_supervision_loss
from medmap_monai.losses.region_dice_ce import RegionDiceCELoss
from medmap_monai.methods.base import Method
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.methods.medmap import MedMAP
from medmap_monai.methods.passion import Passion
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import one_hot_mask
from medmap_monai.networks.blocks.backend import dense_path
from medmap_monai.networks.unet import ModalityUNet
from medmap_monai.synthesis.anatomy import label_map_files, load_anatomy
from medmap_monai.transforms.modality_dropout import RandModalityDropout
from medmap_monai.transforms.synthesize_study import SynthesizeStudy

MODALITIES = ("flair", "t1ce", "t1", "t2")
CLASSES = 4
WEIGHT = (1.0, 1.5, 1.0, 2.0)  # of the classes, background first
REGIONS = ((1, 2, 3), (1, 3))  # whole tumour, tumour core
METHODS = ("baseline", "passion", "medmap")


class SyntheticStudies(Dataset[tuple[Tensor, Tensor]]):
    """Study i is a pure function of (seed, i): z-scored images as float16, labels as uint8."""

    def __init__(self, files: list[Path], shape: tuple[int, ...], spacing: float, priors: str, seed: int) -> None:
        self.files, self.seed = files, seed
        self.make = SynthesizeStudy(MODALITIES, shape, spacing, priors)
        self.normalize = NormalizeIntensity(nonzero=True, channel_wise=True)

    def __len__(self) -> int:
        return 10_000_000

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.make.set_random_state(seed=item_seed(self.seed, 0, index))
        study = self.make(self.files[index % len(self.files)])
        image = torch.as_tensor(self.normalize(study["image"]))
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        return image.clamp(-20, 20).half(), study["label"]


class Pool:
    """The newest ``size`` studies on the device, filled by a thread."""

    def __init__(self, loader: DataLoader[Any], size: int, device: torch.device) -> None:
        self.size, self.device, self.made = size, device, 0
        self.wanted = math.inf  # no more than so many are made
        self.images: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.stop = False
        self.thread = threading.Thread(target=self._fill, args=(loader,), daemon=True)
        self.thread.start()

    def _fill(self, loader: DataLoader[Any]) -> None:
        for image, label in loader:
            while self.made >= self.wanted and not self.stop:
                time.sleep(0.1)
            image, label = image.to(self.device), label.to(self.device)
            if len(self.labels) < self.size:
                self.images.append(image)
                self.labels.append(label)
            else:
                place = self.made % self.size
                self.images[place], self.labels[place] = image, label
            self.made += 1
            if self.stop:
                return

    def draw(self, count: int, rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
        chosen = rng.randint(0, len(self.labels), count)
        return torch.stack([self.images[i] for i in chosen]).float(), torch.stack([self.labels[i] for i in chosen])


def augment(image: Tensor, label: Tensor, rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """Flips, contrast and brightness per modality, noise; what is exactly 0 (outside) stays 0."""
    shown = image != 0
    shape = (*image.shape[:2], 1, 1, 1)
    scale = torch.as_tensor(rng.uniform(0.8, 1.25, shape), dtype=image.dtype, device=image.device)
    shift = torch.as_tensor(rng.normal(0, 0.15, shape), dtype=image.dtype, device=image.device)
    image = image * scale + shift
    if rng.random_sample() < 0.4:
        image = image + torch.randn_like(image) * rng.uniform(0, 0.2)
    image = image * shown
    if rng.random_sample() < 0.5:
        image, label = image.flip(2), label.flip(2)
    return image, label


def window(image: Tensor, label: Tensor, size: tuple[int, ...], rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """A window of every study, seven times of ten about a voxel of its tumour, else anywhere."""
    images, labels = [], []
    room = [whole - part for whole, part in zip(label.shape[2:], size, strict=True)]
    for one_image, one_label in zip(image, label, strict=True):
        start = [rng.randint(0, r + 1) for r in room]
        tumour = torch.nonzero(one_label[0])
        if len(tumour) and rng.random_sample() < 0.7:
            centre = tumour[rng.randint(len(tumour))].tolist()
            middle = [c - s * rng.uniform(0.25, 0.75) for c, s in zip(centre, size, strict=True)]
            start = [int(min(max(m, 0), r)) for m, r in zip(middle, room, strict=True)]
        part = (slice(None), *(slice(a, a + s) for a, s in zip(start, size, strict=True)))
        images.append(one_image[part])
        labels.append(one_label[part])
    return torch.stack(images), torch.stack(labels)


def make_method(
    name: str, channels: tuple[int, ...], deep: int, modality_weight: float, device: torch.device
) -> Method:
    weight = torch.tensor(WEIGHT, device=device)
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=weight)
    network = ModalityUNet(3, len(MODALITIES), CLASSES, channels=channels, deep_supervision=deep)
    if name == "passion":
        return Passion(network, mode="pdt")
    if name == "medmap":
        return MedMAP(
            ModalityDropoutBaseline(AlignedNetwork(network), loss, modality_weight=modality_weight), weight=0.1
        )
    return ModalityDropoutBaseline(network, loss, modality_weight=modality_weight)


class SeveralSubsets(nn.Module):
    """Loss of a batch whose studies are encoded once and decoded from several subsets of their modalities."""

    def __init__(self, network: ModalityUNet) -> None:
        super().__init__()
        self.network = network
        self.loss, self.deep_loss = RegionDiceCELoss(WEIGHT, REGIONS), RegionDiceCELoss(WEIGHT)

    def forward(self, image: Tensor, masks: list[Tensor], label: Tensor) -> Tensor:
        features = self.network.prepare(self.network.encode(image, torch.stack(masks).any(0)))
        terms: list[Tensor] = []
        for mask in masks:
            output = self.network.decode(features, mask)
            terms.append(self.loss(output.logits, label))
            if output.deep_logits:
                terms.append(deep_supervision_loss(self.deep_loss, output.deep_logits, label))
        return torch.stack(terms).sum() / len(masks)


def one_alone(among: Tensor, shares: list[float], count: int, rng: np.random.RandomState) -> Tensor:
    """Masks (count, M) of one modality each, out of those that ``among`` (M,) has, drawn by ``shares``."""
    weights = np.array(shares) * among.cpu().numpy()
    return one_hot_mask(torch.as_tensor(rng.choice(len(shares), count, p=weights / weights.sum())), len(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anatomy", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--first", type=int, default=15, help="use the first N label maps")
    parser.add_argument("--method", choices=METHODS, default="baseline")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 96])
    parser.add_argument("--deep", type=int, default=2)
    parser.add_argument("--modality-weight", type=float, default=1.0, help="of every modality on its own")
    parser.add_argument("--shape", type=int, nargs=3, default=[80, 96, 80])
    parser.add_argument("--window", type=int, nargs=3, default=[], help="train on windows of this size")
    parser.add_argument("--rates", type=float, nargs=len(MODALITIES), default=[0.5] * len(MODALITIES))
    parser.add_argument("--subsets", type=int, default=0, help="in a batch, not one per study: absence is free")
    parser.add_argument(
        "--singles",
        type=float,
        nargs=len(MODALITIES),
        default=[],
        help="a second subset of one modality, and shares",
    )
    parser.add_argument("--compile", action="store_true", help="minutes first, then a third less time for a step")
    parser.add_argument("--new-per-step", type=float, default=math.inf, help="new studies for each step, at most")
    parser.add_argument("--log-every", type=int, default=50, help="steps")
    parser.add_argument("--save-every", type=int, default=1000, help="steps")
    parser.add_argument("--average", type=float, default=0.999, help="of the weights")
    parser.add_argument("--spacing", type=float, default=2.0)
    parser.add_argument("--priors", default="default")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600.0, help="the schedule ends then")
    parser.add_argument("--steps", type=int, default=0, help="the schedule ends after so many steps instead")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", default="", help="weights to continue from")
    parser.add_argument("--mix", type=float, default=1.0, help="of the new weights in what is written; rest: --start")
    parser.add_argument("--name", default="starter")
    args = parser.parse_args()
    if args.subsets and args.batch % args.subsets:
        parser.error(f"--batch {args.batch} is no multiple of --subsets {args.subsets}")

    started = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(args.seed)
    rng = np.random.RandomState(args.seed)
    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)

    files = label_map_files(args.anatomy)[: args.first]
    studies = SyntheticStudies(files, tuple(args.shape), args.spacing, args.priors, args.seed)
    with ThreadPoolExecutor(4) as readers:  # before workers fork, so that they share what is read
        list(readers.map(lambda file: load_anatomy(file, args.spacing), files))
    loader = DataLoader(
        studies,
        sampler=range(len(studies)),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=args.workers,
        prefetch_factor=4,
        worker_init_fn=_one_thread,
    )
    pool = Pool(loader, args.pool, device)
    method = make_method(args.method, tuple(args.channels), args.deep, args.modality_weight, device).to(device)
    if args.start:
        method.network.load_state_dict(torch.load(args.start, map_location=device, weights_only=True))
    everything = torch.ones(len(MODALITIES), dtype=torch.bool)
    groups = args.subsets or args.batch
    layout, several = torch.contiguous_format, None
    if args.singles:
        if args.method != "baseline" or args.modality_weight:
            raise SystemExit("--singles is for the baseline with --modality-weight 0")
        several = SeveralSubsets(method.network).to(device)
        if args.compile:
            layout = torch.channels_last_3d
            several = several.to(memory_format=layout)
            several.compile(dynamic=False)
    first = {k: v.detach().cpu().clone() for k, v in method.network.state_dict().items()}
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=1e-4, fused=device.type == "cuda")
    average = [p.detach().clone() for p in method.network.parameters()]
    dropper = RandModalityDropout(
        MODALITIES, rates=dict(zip(MODALITIES, args.rates, strict=True)), prob=0.85
    ).set_random_state(args.seed)
    while len(pool.labels) < 16 * args.batch:
        time.sleep(0.2)

    log: list[dict[str, Any]] = []
    begun, step, smooth, progress = time.time(), 0, float("nan"), 0.0
    losses: list[Tensor] = []
    while progress < 1.0:
        elapsed = time.time() - started
        progress = step / args.steps if args.steps else elapsed / args.seconds
        warm = min(1.0, (step + 1) / 100)
        rate = args.lr * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        for group in optimizer.param_groups:
            group["lr"] = max(rate, 1e-6)
        pool.wanted = max(16 * args.batch, step * args.new_per_step)
        image, label = pool.draw(args.batch, rng)
        if args.window:
            image, label = window(image, label, tuple(args.window), rng)
        image, label = augment(image, label, rng)
        subsets = [dropper(everything) for _ in range(groups)]
        mask = torch.stack(subsets).repeat_interleave(args.batch // groups, 0).to(device)
        present = everything.expand(args.batch, -1).to(device)
        image = image.contiguous(memory_format=layout)
        precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
        # few subsets: whole groups lack a modality, so to ask which costs less than to compute all
        with precision, dense_path(False if args.subsets else None):
            if several is not None:
                if args.subsets:  # of those that are computed anyway
                    alone = torch.cat([one_alone(subset, args.singles, 1, rng) for subset in subsets])
                    alone = alone.repeat_interleave(args.batch // groups, 0)
                else:
                    alone = one_alone(everything, args.singles, args.batch, rng)
                loss = several(image, [mask, alone.to(device)], label)
            else:
                output = method(image, mask, present, label)
                loss = torch.stack(list(output.losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        method.after_backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        keep = min(args.average, (step + 1) / (step + 20))
        torch._foreach_lerp_(average, [p.detach() for p in method.network.parameters()], 1 - keep)
        losses.append(loss.detach())
        step += 1
        if step % args.log_every == 0 or progress >= 1.0:
            smooth = float(torch.stack(losses).mean())
            losses = []
            line = {
                "step": step,
                "loss": round(smooth, 4),
                "seconds": round(time.time() - begun, 1),
                "made": pool.made,
                "lr": rate,
            }
            log.append(line)
            print(args.name, json.dumps(line), flush=True)
            if not math.isfinite(smooth):
                raise SystemExit(f"loss is not finite at step {step}")
            if step % args.save_every == 0 or progress >= 1.0:
                _save(method, average, first, args.mix, out / f"{args.name}.pt")
    pool.stop = True
    facts = {**vars(args), "steps_done": step, "studies_made": pool.made, "device": _device_name(device), "log": log}
    facts["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else None
    (out / f"{args.name}.json").write_text(json.dumps(facts))
    sys.stdout.flush()
    os._exit(0)  # the workers would go on for ever


def _save(method: Method, average: list[Tensor], first: dict[str, Tensor], mix: float, path: Path) -> None:
    """The averaged weights, mixed with those of the start, as float16, written completely or not at all."""
    names = [name for name, _ in method.network.named_parameters()]
    state = {k: v.detach().cpu().contiguous() for k, v in method.network.state_dict().items()}
    state.update({name: value.detach().cpu().contiguous() for name, value in zip(names, average, strict=True)})
    half = {k: first[k].lerp(v, mix).half() if v.is_floating_point() else v for k, v in state.items()}
    temporary = path.with_suffix(".tmp")
    torch.save(half, temporary)
    temporary.replace(path)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
    os.nice(5)  # the training itself comes first


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
