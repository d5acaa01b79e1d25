"""Training samples per second of two processes under torchrun against one, on otherwise idle cores.

Every process trains on batches of its own with DistributedDataParallel, one thread each; wall time is measured between
barriers, so this benchmark needs a machine on which nothing else runs (it says how busy the machine was). Two processes
that share no gradients show what the machine itself allows: cores share memory and its bandwidth.

    python benchmarks/bench_torchrun.py --network rfnet --size 64
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from bench_passion import NETWORKS, build_method, build_network, training_step
from torch.nn.parallel import DistributedDataParallel

from medmap_monai.engines.distributed import leave_process_group

TARGET = 1.8


def worker(args: argparse.Namespace) -> None:
    """One process of the group; rank 0 writes the seconds of every repeat."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    method = build_method(build_network(args.network), args.step, "auto").train()
    shared = method if args.apart else DistributedDataParallel(method, broadcast_buffers=False)
    step = training_step(shared, args.size)
    step()
    seconds = []
    for _ in range(args.repeats):
        dist.barrier()
        start = time.perf_counter()
        for _ in range(args.steps_per_repeat):
            step()
        dist.barrier()
        seconds.append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        Path(args.worker).write_text(json.dumps(seconds), encoding="utf-8")
    leave_process_group()


def rates(processes: int, arguments: list[str], steps: int) -> list[float]:
    """Samples per second of every repeat with so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "seconds.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, __file__, *arguments, "--worker", str(result)], check=True, env=environment)
        return [processes * steps / seconds for seconds in json.loads(result.read_text(encoding="utf-8"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="rfnet", choices=list(NETWORKS))
    parser.add_argument("--step", default="plain", choices=["baseline", "plain", "passion"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps-per-repeat", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args)
        return
    print(f"{os.cpu_count()} cores, load before: {os.getloadavg()[0]:.1f} (idle: near 0)", flush=True)
    steps = args.steps_per_repeat
    one, two = (rates(n, sys.argv[1:], steps) for n in (1, 2))
    apart = rates(2, [*sys.argv[1:], "--apart"], steps)
    for name, values in (("one process", one), ("two processes", two), ("two that share nothing", apart)):
        middle = statistics.median(values)
        print(f"{name}: {middle:.3g} samples/s ({min(values):.3g} to {max(values):.3g}), n = {len(values)}")
    gain = statistics.median(two) / statistics.median(one)
    limit = statistics.median(apart) / statistics.median(one)
    print(f"{gain:.2f} times one process: {'met' if gain >= TARGET else 'MISSED'} (target {TARGET})")
    print(f"{limit:.2f} times without sharing gradients: DDP keeps {gain / limit:.0%} of what the machine allows")


if __name__ == "__main__":
    main()
