"""How cost grows with voxels, cases and subsets: CPU seconds, the exponent of a power law, the residual of a line.

- voxels: all-subset prediction of a volume that gets longer (windows side by side, nothing skipped);
- cases: loading, all-subset prediction and scoring of more and more cases, as ``medmap evaluate`` does it;
- subsets: one volume with more and more subsets of four modalities.

Linear growth is a straight line: a small residual. The exponent is that of a power law through the totals, fixed costs
(encoding, for subsets; set-up, for cases) included, so it lies at or below 1; above 1, cost would outgrow the size.
Sizes are measured in random order, ``--repeats`` times. Then the peak memory of processes that each sweep one volume
with more and more subsets.

    OMP_NUM_THREADS=1 python benchmarks/bench_growth.py
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_passion import NETWORKS, build_network, cpu_seconds

from medmap_monai.data.evaluation_records import EvaluationRecords
from medmap_monai.data.phantom import write_cohort
from medmap_monai.engines.evaluation_samples import EvaluationSamples
from medmap_monai.engines.evaluation_work import EvaluationWork
from medmap_monai.engines.subset_evaluator import SubsetEvaluator
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.metrics.scoring import Scoring
from medmap_monai.modalities import BRATS
from medmap_monai.transforms.pipelines import eval_transforms

Task = Callable[[int], Callable[[], object]]


def full_first() -> list[tuple[bool, ...]]:
    """All subsets: the full one, so that every modality is encoded however many follow, then the others shuffled."""
    masks = random.Random(0).sample(BRATS.subset_masks(), len(BRATS.subset_masks()))
    return sorted(masks, key=lambda mask: not all(mask))


def sweep(network: torch.nn.Module, window: int, windows: int, subsets: int) -> Callable[[], object]:
    inferer = SubsetSweepInferer([window] * 3, overlap=0, skip_background=False, subsets=full_first()[:subsets])
    image = torch.rand(1, len(BRATS), window, window, window * windows)
    return lambda: inferer(image, network)


def evaluation(network: torch.nn.Module, window: int, cohort: Path, cases: int, output: Path) -> Callable[[], object]:
    records = EvaluationRecords(cohort, "brats2020")()[:cases]
    evaluator = SubsetEvaluator(
        device="cpu",
        network=network,
        dataset=EvaluationSamples(records, eval_transforms(tuple(BRATS))),
        inferer=SubsetSweepInferer([window] * 3),
        modalities=tuple(BRATS),
        output_dir=output,
        scoring=Scoring(bootstrap={"resamples": 50}),
        work=EvaluationWork(progress=False),
    )
    return evaluator.run


def peak_gib(name: str, window: int, shape: list[int], subsets: int) -> float:
    """Peak memory of this process, libraries included, after a sweep of a volume whose middle shows something."""
    image = torch.zeros(1, len(BRATS), *shape)
    middle = tuple(slice(n // 2 - window // 4, n // 2 + window // 4) for n in shape)
    image[(slice(None), slice(None), *middle)] = torch.rand(window // 2, window // 2, window // 2)
    inferer = SubsetSweepInferer([window] * 3, overlap=0, subsets=full_first()[:subsets])
    inferer(image, build_network(name).eval(), torch.ones(1, len(BRATS), dtype=torch.bool))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fit(sizes: list[int], seconds: list[float]) -> dict[str, float]:
    """Line through the medians: slope, intercept, largest residual (share of the value); exponent of a power law."""
    slope, intercept = np.polyfit(sizes, seconds, 1)
    line = slope * np.array(sizes) + intercept
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "residual": float(np.max(np.abs(line - seconds) / seconds)),
        "exponent": float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]),
    }


def measure(task: Task, sizes: list[int], repeats: int) -> dict[str, Any]:
    task(sizes[0])()  # caches fill
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    order = sizes * repeats
    random.Random(0).shuffle(order)
    for size in order:
        run = task(size)
        seconds[size].append(cpu_seconds(run))
    return {"seconds": seconds, **fit(sizes, [statistics.median(seconds[size]) for size in sizes])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="rfnet", choices=list(NETWORKS))
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--voxels", nargs="+", type=int, default=[1, 2, 4, 8], help="windows of a volume")
    parser.add_argument("--cases", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--subsets", nargs="+", type=int, default=[1, 3, 7, 15])
    parser.add_argument("--shape", nargs=3, type=int, default=[40, 40, 40], help="voxels of an evaluated case")
    parser.add_argument("--volume", nargs=3, type=int, default=[240, 240, 155], help="voxels, for the memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write the results to this file as well")
    args = parser.parse_args()
    torch.manual_seed(0)
    network = build_network(args.network).eval()
    with tempfile.TemporaryDirectory() as folder:
        cohort = write_cohort(Path(folder) / "phantom", cases=max(args.cases), shape=args.shape)

        def evaluate(cases: int) -> Callable[[], object]:
            return evaluation(network, args.window, cohort, cases, Path(tempfile.mkdtemp(dir=folder)))

        tasks: dict[str, tuple[Task, list[int]]] = {
            "voxels": (lambda n: sweep(network, args.window, n, len(BRATS.subset_masks())), args.voxels),
            "cases": (evaluate, args.cases),
            "subsets": (lambda n: sweep(network, args.window, 2, n), args.subsets),
        }
        results: dict[str, Any] = {}
        print(f"{args.network}, {torch.get_num_threads()} thread(s), windows of {args.window}^3\n")
        print("| growth | sizes | seconds at them (median) | exponent | largest residual of a line |")
        print("|---|---|---|---|---|")
        for name, (task, sizes) in tasks.items():
            row = measure(task, sizes, args.repeats)
            results[name] = row
            medians = ", ".join(f"{statistics.median(row['seconds'][n]):.2f}" for n in sizes)
            shown = f"| {name} | {', '.join(map(str, sizes))} | {medians} |"
            print(f"{shown} {row['exponent']:.2f} | {100 * row['residual']:.1f} % |", flush=True)
    context = multiprocessing.get_context("spawn")  # a fresh process per row, so that peaks do not add up
    results["peak_gib"] = {}
    for n in args.subsets:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            peak = pool.submit(peak_gib, args.network, args.window, args.volume, n).result()
        results["peak_gib"][n] = peak
        print(f"\npeak memory, {n} subset(s) of a volume of {args.volume} voxels: {peak:.2f} GiB", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
