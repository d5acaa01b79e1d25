"""A synthetic head as scanners see it, and the real study, prepared once."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from medmap_monai.clinical.choose import Choice, choose_images
from medmap_monai.clinical.find_studies import find_studies
from medmap_monai.clinical.prepare_study import PreparedImages, PrepareOptions, prepare_images
from medmap_monai.clinical.volume import Volume
from tests.clinical.real_study import OtherPreprocessing, native_files, remembered
from tests.clinical.scanner import native_head


@pytest.fixture(scope="session")
def heads(phantom_cohort: Path) -> dict[str, Volume]:
    """FLAIR, T1ce and T2 of one synthetic head, apart from each other by known movements."""
    return native_head(phantom_cohort / "BraTS20_Training_001")


@dataclass(frozen=True)
class RealRun:
    """The real study, prepared; seconds of processor time, and peak memory of the process in GB."""

    choice: Choice
    prepared: PreparedImages
    seconds: float
    gigabytes: float
    steps: tuple[str, ...]


@pytest.fixture(scope="session")
def real_memory() -> Iterator[None]:
    """For tests of the real study: what two of them register is registered once."""
    with remembered():
        yield


@pytest.fixture(scope="session")
def prepared_real(real_memory: None) -> RealRun:
    """Takes most of a minute; prepared once for all tests."""
    pytest.importorskip("deepbet", reason="deepbet (extra 'skullstrip') is not installed")
    (study,) = find_studies(next(iter(native_files().values())).parent)
    choice = choose_images(study)
    steps: list[str] = []
    start = time.process_time()
    prepared = prepare_images(choice, PrepareOptions(), steps.append)
    seconds = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return RealRun(choice, prepared, seconds, memory, tuple(steps))


@pytest.fixture(scope="session")
def other_preprocessing(prepared_real: RealRun) -> OtherPreprocessing:
    """Where another, public preprocessing put the native images."""
    return OtherPreprocessing(prepared_real.prepared)
