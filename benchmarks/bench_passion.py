"""Cost of a training step, plain and with PASSION, in conv units, and its peak memory.

One conv unit is the CPU time of forward and backward of Conv3d(8, 8, 3) + InstanceNorm3d + LeakyReLU on a
(1, 8, 80, 80, 80) input, measured between the steps in the same process, so that a shared machine's noise cancels.
Batch 1, all four modalities present: the published setting. Peak memory is that of a process that does nothing else.

    OMP_NUM_THREADS=2 python benchmarks/bench_passion.py --networks rfnet mmformer --size 80 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from monai.utils import optional_import
from torch import nn

from medmap_monai.losses.segmentation import WeightedCEDiceLoss
from medmap_monai.methods.base import Method
from medmap_monai.methods.baseline import ModalityDropoutBaseline
from medmap_monai.methods.passion import Passion
from medmap_monai.methods.preference_balance import PreferenceBalance
from medmap_monai.methods.students import StudentMode
from medmap_monai.networks.base import ModalityNetwork

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "unet": ("unet", "ModalityUNet", {"spatial_dims": 3, "in_channels": 4, "out_channels": 4}),
    "rfnet": ("rfnet", "RFNet", {}),
    "mmformer": ("mmformer", "MMFormer", {}),
    "m2ftrans": ("m2ftrans", "M2FTrans", {}),
    "dmafnet": ("dmafnet", "DMAFNet", {"spatial_dims": 3, "in_channels": 4, "out_channels": 4}),
}
# Published scripts, one step at 80^3: conv units and GiB, plain and with PASSION (design notes of this project)
PUBLISHED = {
    "rfnet": {"plain": (90, 5.4), "passion": (220, 14.9)},
    "mmformer": {"plain": (75, 4.7), "passion": (180, 9.1)},
}
TARGET = {"plain": (0.75, 1.0), "passion": (0.4, 0.5)}


def build_network(name: str) -> ModalityNetwork:
    module, attribute, arguments = NETWORKS[name]
    network_class, found = optional_import(f"medmap_monai.networks.{module}", name=attribute)
    if not found:
        raise SystemExit(f"this checkout has no network {name}")
    return network_class(**arguments)


def build_method(network: ModalityNetwork, kind: str, students: str) -> Method:
    """``plain``: label losses only, the published step without PASSION; ``passion``: everything."""
    if kind == "baseline":
        return ModalityDropoutBaseline(network, WeightedCEDiceLoss())
    if kind == "plain":
        off = PreferenceBalance(network.modalities, gate="off")
        return Passion(network, "pdt", balance=off, weights={"pixel": 0, "prototype": 0})
    return Passion(network, "pdt", students=students)


def cpu_seconds(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def conv_unit(device: str = "cpu", size: int = 80) -> Callable[[], None]:
    layers = nn.Sequential(nn.Conv3d(8, 8, 3, padding=1), nn.InstanceNorm3d(8), nn.LeakyReLU(0.2)).to(device)
    image = torch.randn(1, 8, size, size, size, device=device, requires_grad=True)

    def run() -> None:
        layers(image).sum().backward()

    return run


def training_step(method: nn.Module, size: int) -> Callable[[], None]:
    image = torch.randn(1, 4, size, size, size)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, size)] * 3, indexing="ij")).norm(dim=0)
    label = torch.bucketize(-grid, torch.tensor([-0.8, -0.5, -0.3]))[None, None]  # nested balls, all four classes
    mask = torch.ones(1, 4, dtype=torch.bool)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-4, amsgrad=True)

    def run() -> None:
        optimizer.zero_grad()
        output = method(image, mask, mask, label)
        torch.stack(list(output.losses.values())).sum().backward()
        optimizer.step()

    return run


def measure(name: str, kind: str, students: str, size: int, repeats: int) -> dict[str, Any]:
    """Conv units of every repeat, and the peak memory (GiB) of this process."""
    torch.manual_seed(0)
    method = build_method(build_network(name), kind, students).train()
    step, unit = training_step(method, size), conv_unit()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    unit()
    costs = []
    for _ in range(repeats):
        before, cost, after = cpu_seconds(unit), cpu_seconds(step), cpu_seconds(unit)
        costs.append(2 * cost / (before + after))
    return {"network": name, "step": kind, "students": students, "units": costs, "peak_gib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["rfnet"], choices=list(NETWORKS))
    parser.add_argument("--steps", nargs="+", default=["plain", "passion"], choices=["baseline", "plain", "passion"])
    parser.add_argument("--students", nargs="+", default=["auto"], choices=[mode.value for mode in StudentMode])
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write the results to this file as well")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")  # a fresh process per row, so that peaks do not add up
    results = []
    print(f"{torch.get_num_threads()} thread(s), {args.size}^3, batch 1, 4 modalities, float32")
    for name in args.networks:
        for kind in args.steps:
            for students in args.students if kind == "passion" else args.students[:1]:
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    row = pool.submit(measure, name, kind, students, args.size, args.repeats).result()
                results.append(row)
                print(describe(row, args.size), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=2)


def describe(row: dict[str, Any], size: int) -> str:
    units = statistics.median(row["units"])
    text = f"{row['network']:9} {row['step']:8} {row['students']:10} {units:7.1f} units"
    text += f" ({min(row['units']):.1f}..{max(row['units']):.1f})  peak {row['peak_gib']:.2f} GiB"
    published = PUBLISHED.get(row["network"], {}).get(row["step"])
    if published is None or size != 80:
        return text
    cost, memory = (share * value for share, value in zip(TARGET[row["step"]], published, strict=True))
    met = "met" if units <= cost and row["peak_gib"] <= memory else "MISSED"
    return f"{text}; published {published[0]} units, {published[1]} GiB; target {cost:.0f}, {memory:.2f}: {met}"


if __name__ == "__main__":
    main()
