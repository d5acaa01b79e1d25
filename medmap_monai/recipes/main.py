"""The command line that all recipes share."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from medmap_monai.data.cohort import scan_cohort
from medmap_monai.data.splits import rates_of_combination
from medmap_monai.data.study import Study
from medmap_monai.recipes.choices import Choices
from medmap_monai.recipes.commands import CommandError
from medmap_monai.recipes.plan import make_plan
from medmap_monai.recipes.recipe import PhantomSize, Recipe, Task, choose
from medmap_monai.recipes.run_plan import BusyError, ChangedStepError, run_plan
from medmap_monai.recipes.show_plan import plan_text
from medmap_monai.utils.counted import counted

PHANTOM_EPOCHS = 2


def run_recipe(recipe: Recipe, bundles: Path, arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, then show the plan or run it.

    Args:
        recipe: what the paper trained.
        bundles: folder of the bundles, unless ``--bundles`` names another.
        arguments: command line; ``sys.argv`` when None.

    Returns:
        the exit code: 0 when everything is done, 1 when a step failed, 2 for a mistake in the arguments.
    """
    parser = _parser(recipe, bundles)
    given = parser.parse_args(arguments)
    try:
        choices = _choices(recipe, given)
        steps = make_plan(recipe, choices)
        roots = {"output": choices.output, "bundles": choices.bundles}
        if given.dry_run:
            times = given.seconds_per_step, given.seconds_per_window
            print(plan_text(recipe, choices, steps, roots, *times), end="")
            return 0
        if choices.data is None and choices.phantom is None:
            raise ValueError("--data FOLDER is needed to run the recipe (--dry-run and --phantom do without)")
    except (OSError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")
    # a terminated recipe takes the command that it waits for with it
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        run_plan(steps, choices.output, roots)
    except (OSError, ValueError, BusyError, ChangedStepError, CommandError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    pages = [path for step in steps if step.repeatable for path in step.outputs[:1]]
    kind = "Phantom (synthetic) results; they say nothing about patients or the paper." if choices.phantom else "Done."
    print("\n".join(["", kind, *(f"  {page}" for page in pages)]))
    return 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _parser(recipe: Recipe, bundles: Path) -> argparse.ArgumentParser:
    # no abbreviations: --seed must not pass for --seeds
    parser = argparse.ArgumentParser(
        description=f"{recipe.title}. {recipe.origin}", allow_abbrev=False, epilog=_epilog(recipe)
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder of studies, or a manifest")
    add("--output", type=Path, default=Path("runs", recipe.name), help="folder of all results (default: %(default)s)")
    add("--task", choices=recipe.editions, help="experiment (default: by the edition of the data)")
    add("--edition", help="data-set edition of the data (default: detected)")
    add("--dry-run", action="store_true", help="print every step with its command and cost, and stop")
    add("--phantom", action="store_true", help="the same on a synthetic cohort, with small networks and few epochs")
    add("--phantom-cases", type=int, help="cases of the phantom cohort; with --folds")
    add("--phantom-shape", type=int, nargs=3, metavar="N", help="voxels per axis of the phantom cohort")
    add("--epochs", type=int, help=f"epochs of every training (default: the paper's; with --phantom {PHANTOM_EPOCHS})")
    add("--only", nargs="+", default=[], metavar="TRAINING", help="rows of the table (default: all)")
    add("--combinations", nargs="+", metavar="DIGITS", help="imbalanced missing rates (default: the paper's)")
    add("--seeds", type=int, nargs="+", help=f"seeds of the trainings (default: {' '.join(map(str, recipe.seeds))})")
    add("--partitions", type=int, nargs="+", help="seeds of the partition into folds")
    add("--folds", help="TRAIN/VAL/TEST cases, where the data are not all of the paper's")
    add("--published", type=Path, metavar="FOLDER", help="take PASSION's published split files and test.txt from here")
    add("--train-protocol", choices=("clinical", "legacy"), default="legacy", help="preprocessing of the trainings")
    add(
        "--protocols",
        choices=("clinical", "legacy"),
        nargs="+",
        default=("clinical", "legacy"),
        help="evaluation protocols (default: both)",
    )
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="configuration value for all trainings")
    add("--device", help="such as cuda:1 or cpu (default: the best there is)")
    add("--nproc-per-node", type=int, default=1, help="training processes (torchrun)")
    add("--resample", action="store_true", help="bring modalities of a study to one grid")
    add("--leave-out-broken", action="store_true", help="go on without studies that cannot be used")
    add("--workers", type=int, default=1, help="threads that read the studies once before all else")
    add("--seconds-per-step", type=float, help="with --dry-run: time of one training step on your device")
    add("--seconds-per-window", type=float, help="with --dry-run: time of one window with all subsets")
    add("--bundles", type=Path, default=bundles, help="folder of the bundles")
    return parser


def _epilog(recipe: Recipe) -> str:
    parts = []
    for task in recipe.tasks:
        rates = f"; missing rates {', '.join(task.combinations)}" if task.combinations else "; complete training data"
        parts.append(f"{task.edition}: {', '.join(t.name for t in task.trainings)}{rates}.")
    return " ".join(parts)


def _choices(recipe: Recipe, given: argparse.Namespace) -> Choices:
    if given.phantom and given.data:
        raise ValueError("--phantom makes its own data; leave --data out")
    if given.device and given.nproc_per_node > 1:
        raise ValueError("each process takes its own device: give --device or --nproc-per-node")
    if given.nproc_per_node < 1 or given.workers < 1 or (given.epochs is not None and given.epochs < 1):
        raise ValueError("--epochs, --nproc-per-node and --workers must be at least 1")
    studies, edition = _studies(given)
    task = recipe.task(given.task or edition or recipe.editions[0])
    phantom = _phantom(given, task) if given.phantom else None
    folds = _folds(given, task, phantom, len(studies) if studies else None)
    combinations = tuple(task.combinations if given.combinations is None else given.combinations)
    for combination in combinations:
        rates_of_combination(combination, task.edition)  # an error that says what is allowed
    if combinations and not task.combinations:
        raise ValueError(f"{recipe.title} trains on complete data: --combinations does not apply")
    if given.published and not combinations:
        raise ValueError("--published is about imbalanced missing rates, which this recipe has not")
    return Choices(
        output=given.output.absolute(),
        bundles=given.bundles.absolute(),
        task=task,
        trainings=tuple(choose(task.trainings, given.only)),
        seeds=tuple(given.seeds or recipe.seeds),
        combinations=tuple(c.removeprefix("mr") for c in combinations),
        partitions=tuple(given.partitions or (task.partitions[:1] if phantom else task.partitions)),
        edition=task.edition if phantom or edition is None else edition,
        folds=folds,
        shape=phantom.shape if phantom else _shape(studies) or task.shape,
        data=None if given.data is None else given.data.absolute(),
        phantom=phantom,
        published=None if given.published is None else given.published.absolute(),
        epochs=PHANTOM_EPOCHS if phantom and given.epochs is None else given.epochs,
        device=given.device,
        processes=given.nproc_per_node,
        train_protocol=given.train_protocol,
        protocols=tuple(given.protocols),
        overrides=_overrides(given.set),
        resample=given.resample,
        leave_out_broken=given.leave_out_broken,
        workers=given.workers,
    )


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    if not pairs:
        return {}
    from medmap_monai.utils.bundle_workflow import parse_overrides  # MONAI takes seconds to import

    return parse_overrides(pairs)


def _studies(given: argparse.Namespace) -> tuple[list[Study], str | None]:
    """The studies as far as their names tell, and their edition."""
    if given.data is None:
        return [], given.edition
    scan = scan_cohort(given.data, given.edition)
    if not scan.studies:
        raise ValueError(f"{given.data} holds no usable study")
    return scan.studies, str(scan.edition)


def _phantom(given: argparse.Namespace, task: Task) -> PhantomSize:
    size = task.phantom
    if given.phantom_cases is not None:
        if given.folds is None:
            raise ValueError("--phantom-cases needs --folds TRAIN/VAL/TEST with as many cases")
        size = replace(size, cases=given.phantom_cases)
    if given.phantom_shape is not None:
        size = replace(size, shape=tuple(given.phantom_shape))
    return size


def _folds(
    given: argparse.Namespace, task: Task, phantom: PhantomSize | None, found: int | None
) -> tuple[int, int, int]:
    """Train, val and test cases; as many as there are."""
    train, val, test = phantom.folds if phantom else task.folds
    if given.folds is not None:
        try:
            train, val, test = (int(text) for text in given.folds.split("/"))
        except ValueError:
            raise ValueError(f"--folds must be TRAIN/VAL/TEST, such as 219/50/100, got {given.folds!r}") from None
        if train < 1 or val < 0 or test < 1:
            raise ValueError(f"--folds needs training and test cases, got {given.folds}")
    cases = phantom.cases if phantom else found
    if cases is not None and train + val + test != cases:
        what = "the phantom cohort has" if phantom else f"{given.data} holds"
        raise ValueError(
            f"{what} {counted(cases, 'case')}, but the folds {train}/{val}/{test} are {train + val + test}; "
            "give --folds TRAIN/VAL/TEST"
        )
    return train, val, test


def _shape(studies: Sequence[Study]) -> tuple[int, int, int] | None:
    """Voxels of a usual study, from a few headers; the last axis is the mean. None without any that can be read."""
    from nibabel import load
    from nibabel.spatialimages import SpatialImage

    shapes: list[tuple[int, ...]] = []
    for study in studies[:: max(1, len(studies) // 25)]:
        try:
            image = load(next(iter(study.images.values())).path)
        except Exception:  # a broken study is reported when all are read
            continue
        if isinstance(image, SpatialImage) and len(image.shape) >= 3:
            shapes.append(tuple(int(n) for n in image.shape[:3]))
    if not shapes:
        return None
    middle = sorted(shapes)[len(shapes) // 2]
    return middle[0], middle[1], round(sum(shape[2] for shape in shapes) / len(shapes))
