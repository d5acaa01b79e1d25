"""A synthetic head as scanners see it, and the real study, prepared once."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from medmap_monai.clinical.prepare_folder import PreparedStudy, prepare_folder
from medmap_monai.clinical.volume import Volume
from tests.clinical.real_study import native_files
from tests.clinical.scanner import native_head


@pytest.fixture(scope="session")
def heads(phantom_cohort: Path) -> dict[str, Volume]:
    """FLAIR, T1ce and T2 of one synthetic head, apart from each other by known movements."""
    return native_head(phantom_cohort / "BraTS20_Training_001")


@dataclass(frozen=True)
class RealRun:
    """The real study after ``prepare_folder``; seconds of processor time, and peak memory of the process in GB."""

    study: PreparedStudy
    seconds: float
    gigabytes: float
    steps: tuple[str, ...]


@pytest.fixture(scope="session")
def prepared_real(tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    """Takes about a minute; prepared once for all tests. Do not write into it."""
    pytest.importorskip("deepbet", reason="deepbet (extra 'skullstrip') is not installed")
    folder = next(iter(native_files().values())).parent
    steps: list[str] = []
    start = time.process_time()
    output = tmp_path_factory.mktemp("real")
    (study,) = prepare_folder(folder, output, progress=lambda name, step: steps.append(step))
    seconds = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    assert not study.error, study.error
    return RealRun(study, seconds, memory, tuple(steps))
