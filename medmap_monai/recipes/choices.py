"""What a user chose for one run of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmap_monai.recipes.recipe import PhantomSize, Task, Training


@dataclass(frozen=True)
class Choices:
    """A task, and everything that may differ from the paper.

    output: folder of everything.
    bundles: folder of the bundles.
    task: the experiment.
    trainings: rows of its table that are wanted.
    seeds, combinations, partitions: those that are wanted.
    data: folder of studies or manifest; None for a plan without data, and with ``phantom``.
    edition: data-set edition of the data.
    phantom: size of the phantom cohort that replaces the data.
    folds: train, val and test cases.
    shape: voxels of a study.
    published: folder of the published split files, instead of splits of our own.
    epochs: instead of those of the bundles.
    device: instead of the best there is.
    processes: training processes under torchrun.
    train_protocol: preprocessing of the trainings.
    protocols: evaluation protocols.
    overrides: configuration values for every training, and for its evaluations where they know the key.
    resample: bring modalities of a study to one grid.
    leave_out_broken: go on without studies that cannot be used.
    workers: threads that look at the studies.
    """

    output: Path
    bundles: Path
    task: Task
    trainings: tuple[Training, ...]
    seeds: tuple[int, ...]
    combinations: tuple[str, ...]
    partitions: tuple[int, ...]
    edition: str
    folds: tuple[int, int, int]
    shape: tuple[int, int, int]
    data: Path | None = None
    phantom: PhantomSize | None = None
    published: Path | None = None
    epochs: int | None = None
    device: str | None = None
    processes: int = 1
    train_protocol: str = "legacy"
    protocols: tuple[str, ...] = ("clinical", "legacy")
    overrides: Mapping[str, Any] = field(default_factory=dict)
    resample: bool = False
    leave_out_broken: bool = False
    workers: int = 1

    @property
    def overlays(self) -> tuple[str, ...]:
        """Configurations merged over the bundles' own."""
        return ("phantom",) if self.phantom else ()
