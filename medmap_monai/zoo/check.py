"""The zoo's checks of a bundle, offline: one result per check."""

from __future__ import annotations

import logging
import os
import random
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
from monai.utils import look_up_option

from medmap_monai.zoo import config_checks, edition_check, file_checks, network_checks
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.export import ExportError
from medmap_monai.zoo.outcome import CheckFailedError, CheckSkippedError


class Status(Enum):
    """How a check ended."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"


class CheckResult(NamedTuple):
    """One line of a report: which check, how it ended, and why (or what was looked at)."""

    check: str
    status: Status
    detail: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.status.value} {self.check:<18} {self.detail}".rstrip()


#: every check, in the order in which it runs; each takes the bundle and returns what it looked at
CHECKS: dict[str, Callable[[BundleFolder], str]] = {
    "layout": file_checks.layout,
    "license": file_checks.license_text,
    "readme": file_checks.readme,
    "file_sizes": file_checks.file_sizes,
    "metadata": file_checks.metadata_schema,
    "version": file_checks.version_changelog,
    "personal_paths": file_checks.no_personal_paths,
    "logging": file_checks.logging_conf,
    "references": config_checks.references,
    "targets": config_checks.targets,
    "overlay_keys": config_checks.overlay_keys,
    "channels": config_checks.channels,
    "edition": edition_check.edition,
    "network_def": config_checks.network_definitions,
    "train_workflow": config_checks.train_workflow,
    "infer_workflow": config_checks.infer_workflow,
    "network_in_out": network_checks.network_in_out,
    "weights": network_checks.weights,
    "torchscript": network_checks.torchscript,
    "onnx": network_checks.onnx,
}


def check_bundle(folder: str | os.PathLike[str], skip: Collection[str] = ()) -> Iterator[CheckResult]:
    """Run every check on one bundle and yield the results as they come.

    Nothing is downloaded and nothing is written into the bundle. Where ``models/model.pt`` is absent, network checks
    use random weights. A check that raises is a FAIL, whatever it raises.

    Args:
        folder: the bundle's folder.
        skip: names of checks to leave out; they are reported as SKIP.

    Raises:
        FileNotFoundError: the folder is no bundle.
        ValueError: a name in ``skip`` is unknown.

    Example:
        >>> [r for r in check_bundle("bundles/brats_unet_dropout") if r.status is Status.FAIL]  # doctest: +SKIP
        []
    """
    for name in skip:
        look_up_option(name, list(CHECKS))
    bundle = BundleFolder(folder)
    for name, check in CHECKS.items():
        if name in skip:
            yield CheckResult(name, Status.SKIP, "by option", 0.0)
            continue
        start = time.perf_counter()
        status, detail = _run(check, bundle)
        yield CheckResult(name, status, detail, time.perf_counter() - start)


def _run(check: Callable[[BundleFolder], str], bundle: BundleFolder) -> tuple[Status, str]:
    try:
        with _quiet(), _own_randomness():
            return Status.PASS, check(bundle)
    except CheckSkippedError as reason:
        return Status.SKIP, str(reason)
    except (CheckFailedError, ExportError) as reason:
        return Status.FAIL, str(reason)
    except Exception as error:  # whatever a bundle's content makes MONAI or torch raise
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        return Status.FAIL, f"{type(root).__name__}: {' '.join(str(root).split())[:400]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MONAI's log lines and warnings: the report is the PASS and FAIL lines."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Undo what building networks and a workflow's ``initialize`` do to the seeds and flags of this process."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
