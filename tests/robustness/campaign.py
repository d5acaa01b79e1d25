"""The whole campaign: ``python -m tests.robustness.campaign`` prints a table of what became of each part.

Everything is seeded and bounded; it takes about a quarter of an hour on one core. The tests run a small share of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from medmap_monai.data.phantom import write_cohort
from medmap_monai.zoo.index import write_index
from medmap_monai.zoo.pack import pack_bundle
from tests.robustness.headers import mutated_headers
from tests.robustness.killed import evaluate_run, install_run, killed_runs, predict_run, train_run
from tests.robustness.studies import Outcome, run_among_good_ones
from tests.small_bundle import BUNDLES, NAME, write_random_weights, write_small_bundle

_MOMENTS = {"predict": 6, "evaluate": 5, "training": 5, "bundle install": 4}


def main() -> None:
    """Run the parts, print their outcomes, and end with 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--headers", type=int, default=1000, help="mutated headers")
    parser.add_argument("--every", type=int, default=1, help="each N-th kind of damaged study")
    parser.add_argument("--seed", type=int, default=0, help="of headers and moments")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| part | became | wrong | seconds |\n|---|---|---|---|")
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        for part, run in _parts(Path(name), given):
            start = time.perf_counter()
            outcomes, wrong = run()
            faults += len(wrong)
            became = ", ".join(f"{count} {what}" for what, count in outcomes.items())
            print(f"| {part} | {became} | {len(wrong)} | {time.perf_counter() - start:.0f} |", flush=True)
            print("".join(f"  {line}\n" for line in wrong), end="", file=sys.stderr, flush=True)
    sys.exit(faults > 0)


def _parts(folder: Path, given: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    for part in ("headers", "predict", "evaluate", *(f"kill {name}" for name in _MOMENTS)):
        (folder / part).mkdir()
    # first the parts that fork: a process that has computed gradients or opened pools cannot be forked in safety
    cohort = write_cohort(folder / "cohort", edition="brats2020", cases=8, shape=(32, 32, 32), seed=11)
    weights = write_random_weights(folder / "model.pt")
    bundle = write_small_bundle(folder, weights)
    runs = {
        "predict": predict_run(bundle, cohort),
        "evaluate": evaluate_run(bundle, cohort),
        "training": train_run(bundle, cohort),
        "bundle install": install_run(write_zoo(folder / "zoo", weights), NAME),
    }
    for name, (run, result) in runs.items():
        place, moments = folder / f"kill {name}", _MOMENTS[name]
        yield (
            f"`{name}`, killed at {moments} moments and started again",
            lambda run=run, result=result, place=place, moments=moments: killed_runs(
                run, result, place, moments, given.seed
            ),
        )
    yield "mutated headers", lambda: mutated_headers(folder / "headers", given.headers, given.seed)
    for command in ("predict", "evaluate"):
        yield (
            f"damaged studies among good ones, `{command}`",
            lambda command=command: run_among_good_ones(command, bundle, cohort, folder / command, given.every),
        )


def write_zoo(folder: Path, weights: Path) -> Path:
    """A folder with the package of a bundle, from which it can be installed."""
    folder.mkdir()
    pack_bundle(BUNDLES / NAME, weights, folder, overlay="phantom")
    write_index(folder)
    return folder


if __name__ == "__main__":
    main()
