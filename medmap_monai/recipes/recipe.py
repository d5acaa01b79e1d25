"""What a paper trained, declared as data: a recipe has tasks, a task has trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Training:
    """One row of a paper's table: a bundle with settings.

    name: folder of the runs and what ``--only`` takes.
    title: heading in the report.
    bundle: folder name in ``bundles/``.
    settings: configuration values over the bundle's, in every run.
    stages: trainings that one run of the bundle holds, each of all its epochs (2: a teacher, then the student).
    """

    name: str
    title: str
    bundle: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    stages: int = 1


@dataclass(frozen=True)
class PhantomSize:
    """The phantom cohort that stands in for the data: its cases, voxels per axis, and (train, val, test) cases."""

    cases: int
    shape: tuple[int, int, int]
    folds: tuple[int, int, int]


@dataclass(frozen=True)
class Task:
    """A paper's experiments on one data set.

    edition: name of the data-set edition.
    trainings: rows of the table, in its order.
    folds: train, val and test cases of the paper.
    shape: voxels of a usual study, for the cost of a plan that is made without the data.
    phantom: the cohort of ``--phantom``.
    combinations: imbalanced missing rates of the training cases, as in ``medmap split``; empty: complete data.
    partitions: seeds of the partition into folds, one per repetition with other folds.
    settings: configuration values of every training, phantom runs included.
    schedule: configuration values of sizes and optimisation; phantom runs have those of the bundles' phantom overlay.
    """

    edition: str
    trainings: tuple[Training, ...]
    folds: tuple[int, int, int]
    shape: tuple[int, int, int]
    phantom: PhantomSize
    combinations: tuple[str, ...] = ()
    partitions: tuple[int, ...] = (1,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        """Cases of the data set."""
        return sum(self.folds)


@dataclass(frozen=True)
class Recipe:
    """A paper.

    name: short name; results go to ``runs/<name>`` unless told otherwise.
    title: what the plan is headed with.
    origin: one sentence on what these settings follow, and what they do not.
    tasks: one per data set.
    seeds: seeds of the trainings.
    """

    name: str
    title: str
    origin: str
    tasks: tuple[Task, ...]
    seeds: tuple[int, ...] = (1037,)

    def task(self, edition: str) -> Task:
        """The task of a data-set edition.

        Raises:
            ValueError: the recipe has none; lists those it has.
        """
        for task in self.tasks:
            if task.edition == edition:
                return task
        raise ValueError(f"{self.title} has no experiment on {edition}; it has {', '.join(self.editions)}")

    @property
    def editions(self) -> list[str]:
        """Editions of the tasks."""
        return [task.edition for task in self.tasks]


def choose(trainings: Sequence[Training], names: Sequence[str]) -> list[Training]:
    """The trainings of those names, in the order of the table; all where no name is given.

    Raises:
        ValueError: an unknown name; lists the known ones.
    """
    known = [training.name for training in trainings]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"unknown trainings {', '.join(unknown)}; there are {', '.join(known)}")
    return [training for training in trainings if not names or training.name in names]
