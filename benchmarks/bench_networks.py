"""Cost of the published backbones in conv units: inference of one window, all subsets of it, and a training step.

One conv unit is the CPU time of forward and backward of Conv3d(8, 8, 3) + InstanceNorm3d + LeakyReLU on a
(1, 8, 80, 80, 80) input, measured before and after each repeat in the same process, so that a shared machine's noise
cancels. Windows are 80^3, batch 1, float32, random weights: the published setting. Every row runs in a process of its
own, whose peak memory (libraries included) is shown.

    OMP_NUM_THREADS=2 python benchmarks/bench_networks.py
    OMP_NUM_THREADS=1 python benchmarks/bench_networks.py --networks rfnet --tasks "one window, 1 modality"
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from bench_passion import build_method, build_network, conv_unit, cpu_seconds, training_step

from medmap_monai.modalities import BRATS

ONE, FOUR, SWEEP, STEP = "one window, 1 modality", "one window, 4 modalities", "all 15 subsets", "plain training step"
#: Published scripts at 80^3 in conv units (design notes of this project); they run all encoders whatever is missing.
PUBLISHED: dict[str, dict[str, float]] = {
    "rfnet": {ONE: 22, FOUR: 22, SWEEP: 330, STEP: 90},
    "mmformer": {ONE: 14, FOUR: 14, SWEEP: 205, STEP: 75},
    "m2ftrans": {ONE: 15.5, FOUR: 15.5, SWEEP: 233},
}
#: Largest allowed share of the published cost.
TARGET = {SWEEP: 1 / 3, STEP: 0.75}


def inference(name: str, task: str, size: int) -> Callable[[], None]:
    network = build_network(name).eval()
    image = torch.randn(1, len(BRATS), size, size, size)
    if task == SWEEP:
        masks = [torch.tensor([mask]) for mask in BRATS.subset_masks()]
    else:
        masks = [torch.tensor([BRATS.mask(BRATS if task == FOUR else ["flair"])])]
    seen = torch.stack(masks).any(dim=0)

    @torch.no_grad()
    def run() -> None:
        features = network.prepare(network.encode(image, seen))
        for mask in masks:
            network.decode(features, mask)

    return run


def measure(name: str, task: str, size: int, repeats: int) -> dict[str, Any]:
    """Conv units of every repeat and the peak memory (GiB) of this process."""
    torch.manual_seed(0)
    if task == STEP:
        run = training_step(build_method(build_network(name), "plain", "batched").train(), size)
    else:
        run = inference(name, task, size)
    run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    unit = conv_unit()
    unit()
    costs, before = [], cpu_seconds(unit)
    for _ in range(repeats):
        cost, after = cpu_seconds(run), cpu_seconds(unit)
        costs.append(2 * cost / (before + after))
        before = after
    return {"network": name, "task": task, "units": costs, "peak_gib": peak}


def describe(row: dict[str, Any], size: int) -> str:
    units = statistics.median(row["units"])
    published = PUBLISHED.get(row["network"], {}).get(row["task"])
    text = f"| {row['network']} | {row['task']} | {units:.1f} ({min(row['units']):.1f} to {max(row['units']):.1f}) | "
    text += f"{row['peak_gib']:.2f} | "
    if published is None or size != 80:
        return text + "| | |"
    share = TARGET.get(row["task"])
    verdict = "" if share is None else ("met" if units <= share * published else "MISSED")
    return text + f"{published:g} | {'' if share is None else f'{share * published:.0f}'} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(PUBLISHED))
    parser.add_argument("--tasks", nargs="+", default=[ONE, FOUR, SWEEP, STEP], choices=[ONE, FOUR, SWEEP, STEP])
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="write the results to this file as well")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")  # a fresh process per row, so that peaks do not add up
    results = []
    print(f"{torch.get_num_threads()} thread(s), {args.size}^3, batch 1, 4 modalities, float32\n")
    print("| network | task | conv units: median (range) | peak GiB | published | target | |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in args.networks:
        for task in args.tasks:
            with ProcessPoolExecutor(1, mp_context=context) as pool:  # a row that fails ends the run
                row = pool.submit(measure, name, task, args.size, args.repeats).result()
            results.append(row)
            print(describe(row, args.size), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
