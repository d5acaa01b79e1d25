"""Compare methods: same cases, same budget, seeds paired; restartable, one run after another.

Every run is a bundle trained by ``python -m monai.bundle run training`` with its phantom overlay and the settings of
a plan, then scored by ``medmap evaluate`` on a fresh cohort. A finished run is never repeated, an interrupted one
continues. The table is written by ``compare_methods_table.py``. There are two plans: ``compare_methods.json`` on
phantoms, and ``compare_realistic.json`` on synthetic studies from real anatomy, which needs ``--anatomy``.

Neither says anything about patients.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medmap_monai.data.availability import draw_availability
from medmap_monai.data.phantom import ensure_cohort
from medmap_monai.data.splits import SplitRow, write_split
from medmap_monai.data.studies import find_studies
from medmap_monai.recipes.commands import CommandError, run_command
from medmap_monai.recipes.comparison_plan import load_plan, resolved
from medmap_monai.synthesis.cohort import ensure_synthetic_cohort
from medmap_monai.utils.json_file import read_json

REPOSITORY = Path(__file__).resolve().parents[1]
PLAN = Path(__file__).with_suffix(".json")
STAGES = ("train", "score")


class Comparison:
    """A folder with the cohorts, the split and one sub-folder per run.

    Args:
        folder: where everything is kept.
        plan: protocol and variants, see :func:`~medmap_monai.recipes.comparison_plan.load_plan`.
        anatomy: folder of brain label maps, for a protocol that makes its studies from them.
        device: where runs train and are scored; those of one table belong on one.
        workers: processes that write synthetic studies.
        example: a cohort to score beside the table, such as one real study; on the grid of the protocol's studies.

    Raises:
        SystemExit: such a protocol without ``anatomy``.
    """

    def __init__(
        self,
        folder: Path,
        plan: dict[str, Any],
        anatomy: str | None = None,
        device: str = "cpu",
        workers: int = 0,
        example: Path | None = None,
    ) -> None:
        if (anatomy is None) != ("shape" in plan["protocol"]):
            raise SystemExit("--anatomy FOLDER of brain label maps goes with a plan that has train_anatomies")
        self.folder, self.anatomy, self.device, self.workers = folder, anatomy, device, workers
        self.example = example
        self.protocol = plan["protocol"]
        self.variants = {name: resolved(plan["variants"], name) for name in plan["variants"]}

    def prepare(self, stages: Sequence[str] = STAGES) -> None:
        """The cohorts that ``stages`` need, and the fixed availability of every training case."""
        p = self.protocol
        number = p["train_cases"] + p["val_cases"]
        if "score" in stages:  # numbered on, where the plan says nothing else: no test case has a training case's name
            self._cohort("test", p["test_cases"], p.get("test_first_case", number))
        if "train" not in stages:
            return
        train = self._cohort("train", number, 0)
        names = [study.case_id for study in find_studies(train)]
        granted = draw_availability(p["train_cases"], p["missing_rates"], seed=p["split_seed"])
        rows = [
            SplitRow(name, "train", subset, p["split_seed"], p["missing_rates"])
            for name, subset in zip(names, granted, strict=False)
        ]
        rows += [SplitRow(name, "val", None, p["split_seed"], {}) for name in names[p["train_cases"] :]]
        write_split(self.folder / "split.csv", rows)

    def _cohort(self, name: str, cases: int, first_case: int) -> Path:
        """Folder of the cohort ``name``; made where it is not there."""
        p, folder = self.protocol, self.folder / name
        seed = p[f"{name}_seed"]
        if self.anatomy is None:
            return ensure_cohort(folder, cases=cases, shape=p["shape"], seed=seed, first_case=first_case)
        first, last = p[f"{name}_anatomies"]
        return ensure_synthetic_cohort(
            folder,
            self.anatomy,
            cases,
            p["spacing"],
            priors=p[f"{name}_priors"],
            seed=seed,
            first_case=first_case,
            anatomies=(first, last),
            workers=self.workers,
        )

    def run(self, variant: str, seed: int, stages: Sequence[str] = STAGES) -> None:
        """Train and evaluate one variant with one seed, or do one of the two."""
        folder = self.folder / "runs" / variant / f"seed{seed}"
        settings = self.variants[variant]
        scores, features = folder / "evaluation" / "summary.json", folder / "features.npz"
        shown = self.example is None or (folder / "example" / "summary.json").is_file()
        if scores.is_file() and shown and (features.is_file() or "features" not in settings):
            return
        folder.mkdir(parents=True, exist_ok=True)
        bundle = REPOSITORY / "bundles" / settings["bundle"]
        overrides = {
            "dataset_dir": str(self.folder / "train"),
            "split_file": str(self.folder / "split.csv"),
            "missing_rates": None,
            "ckpt_dir": str(folder / "models"),
            "output_dir": str(folder),
            "seed": seed,
            "device": self.device,
            "val_interval": 1000,
            **self.protocol["overrides"],
            **settings.get("overrides", {}),
        }
        check_settings(folder / "settings.json", overrides)
        if "train" in stages:
            (folder / "settings.json").write_text(json.dumps(overrides, indent=2) + "\n")
        files = [str(bundle / "configs" / name) for name in ("train.json", "phantom.json")]
        files.append(str(folder / "settings.json"))
        name = f"{variant} seed {seed}"
        train = ["python", "-m", "monai.bundle", "run", "training", "--config_file", str(files)]
        if "train" in stages:
            run_command(f"{name}: train", [*train, "--bundle_root", str(bundle)], log=folder / "training.log")
        if "score" not in stages:
            return
        model = folder / "models"
        common = ["--bundle", str(bundle), "--device", self.device, "--overlay", "phantom"]
        if "features" in settings and not features.is_file():
            wanted = settings["features"]
            checkpoint = model / wanted.get("checkpoint", "model.pt")
            values = {**overrides, **wanted.get("overrides", {})}
            command = ["medmap", "features", str(self.folder / "test"), *common, "--output", str(features)]
            command += ["--cases", str(self.protocol["gap_cases"]), "--set", f"checkpoint={checkpoint}", "--overlay"]
            command += [write_overlay(bundle, "inference", folder / "features_settings.json", values)]
            run_command(f"{name}: features", command, log=folder / "features.log")
        evaluated = {**overrides, **self.protocol.get("evaluate", {})}
        cohorts = [("evaluation", self.folder / "test", evaluated, ["--data-name", self.protocol["data_name"]])]
        if self.example is not None:
            cohorts.append(("example", self.example, {**evaluated, **self.protocol.get("example", {})}, []))
        for kind, cohort, values, more in cohorts:
            if (folder / kind / "summary.json").is_file():
                continue
            command = ["medmap", "evaluate", str(cohort), *common, *more, "--output", str(folder / kind)]
            command += ["--set", f"checkpoint={model / 'model.pt'}", "--overlay"]
            command += [write_overlay(bundle, "evaluate", folder / f"{kind}_settings.json", values)]
            run_command(f"{name}: {kind}", command, log=folder / f"{kind}.log")


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse to go on with, or to score, a run that was trained with other settings than ``settings``.

    Raises:
        CommandError: ``path`` holds other ones, apart from where files lie and which device computes.
    """
    before = read_json(path, "settings of a run") if path.is_file() else settings
    places = {"dataset_dir", "split_file", "ckpt_dir", "output_dir", "device"}
    changed = sorted(k for k in {*before, *settings} - places if before.get(k) != settings.get(k))
    if changed:
        raise CommandError(
            f"{path.parent} was trained with other settings ({', '.join(changed)}): delete it, or give the plan "
            "that it was trained with"
        )


def write_overlay(bundle: Path, config: str, path: Path, overrides: dict[str, Any]) -> str:
    """Write those overrides that matter beyond training, such as the network, as an overlay of ``config``.

    A file, since an override may name a component to build, which ``--set`` refuses: it takes data only.
    """
    known = read_json(bundle / "configs" / f"{config}.json", "configuration")
    private = {"dataset_dir", "output_dir", "seed", "device", "split_file"}
    kept = {key: value for key, value in overrides.items() if key.split("#")[0] in known and key not in private}
    path.write_text(json.dumps(kept, indent=2) + "\n")
    return str(path)


def chosen(plan: dict[str, Any], only: list[str], seeds: list[int]) -> Iterator[tuple[str, int]]:
    """Variants and seeds in the order in which they run: all variants of one seed first."""
    if both := sorted(set(plan["variants"]) & set(plan["suites"])):
        raise SystemExit(f"{both} name a variant and a suite; --only could not tell them apart")
    unknown = sorted(set(only) - set(plan["variants"]) - set(plan["suites"]))
    if unknown:
        raise SystemExit(
            f"unknown variants {unknown}; there are {sorted(plan['variants'])}, suites {list(plan['suites'])}"
        )
    names = [v for name in only for v in plan["suites"].get(name, {"variants": [name]})["variants"]] or list(
        plan["variants"]
    )
    for seed in seeds:
        for variant in dict.fromkeys(names):
            yield variant, seed


def main() -> None:
    """Parse the arguments and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), help="folder (default: runs/compare)")
    parser.add_argument("--plan", type=Path, default=PLAN, help="protocol and variants (JSON)")
    parser.add_argument("--anatomy", help="folder of brain label maps, for compare_realistic.json")
    parser.add_argument("--only", nargs="*", default=[], help="variants or suites (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--device", default="cpu", help="such as cuda (default: cpu)")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=STAGES, help="train here and score elsewhere (default: both)"
    )
    parser.add_argument("--example", type=Path, help="cohort to score beside the table, such as one real study")
    parser.add_argument("--dry-run", action="store_true", help="print the runs and stop")
    arguments = parser.parse_args()
    plan = load_plan(arguments.plan)
    jobs = list(chosen(plan, arguments.only, arguments.seeds))
    if arguments.dry_run:
        print("\n".join(f"{variant} seed {seed}" for variant, seed in jobs))
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # runs side by side share the cores; threads that wait would spin
    anatomy = arguments.anatomy and os.path.abspath(arguments.anatomy)
    beside = arguments.processes if arguments.processes > 1 else 0
    comparison = Comparison(arguments.output.resolve(), plan, anatomy, arguments.device, beside, arguments.example)
    comparison.prepare(arguments.stages)
    failed = []
    with ThreadPoolExecutor(arguments.processes) as pool:
        for (variant, seed), future in [(job, pool.submit(comparison.run, *job, arguments.stages)) for job in jobs]:
            try:
                future.result()
                print(f"done: {variant} seed {seed}", flush=True)
            except CommandError as error:
                failed.append(f"{variant} seed {seed}: {error}")
                print(f"FAILED: {failed[-1]}", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} of {len(jobs)} runs failed")


if __name__ == "__main__":
    main()
