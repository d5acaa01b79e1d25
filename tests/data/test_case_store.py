"""The store of preprocessed cases: same samples as from the files, never those of other files or settings."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose

from medmap_monai.data import case_store
from medmap_monai.data.case_store import CaseStore
from medmap_monai.data.cohort import cohort_records
from medmap_monai.data.fill_store import fill_store
from medmap_monai.data.phantom import write_cohort
from medmap_monai.data.seeded_dataset import SeededCacheDataset
from medmap_monai.data.slices import SliceDataset
from medmap_monai.modalities import BRATS
from medmap_monai.transforms.pipelines import train_transforms

SETTINGS: dict[str, dict[str, Any]] = {
    "published": {"mode": "pdt", "roi_size": [16] * 3, "augment": "published"},
    "idt": {"mode": "idt", "roi_size": [16] * 3, "augment": "light", "missing": {"rates": 0.5}},
    "legacy": {"mode": "idt_drop", "protocol": "legacy", "roi_size": [16] * 3, "missing": {"rates": 0.3}},
    "whole": {"mode": "pdt", "augment": "light"},
    "resampled": {"mode": "pdt", "roi_size": [16] * 3, "orientation": "LPS", "spacing": [1.5, 1.5, 1.5]},
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("store") / "cohort", cases=3, shape=[20, 22, 18])


def dataset(cohort: Path, store: Path | None, dtype: str = "float32", cache_rate: float = 0.0, **settings: Any) -> Any:
    pipeline = train_transforms(tuple(BRATS), **(settings or SETTINGS["published"]))
    kept = CaseStore(store, pipeline, dtype)
    data = cohort_records(cohort)
    return SeededCacheDataset(data, pipeline, seed=3, cache_rate=cache_rate, copy_cache=False, store=kept)


def samples(data: Any, workers: int = 0, epochs: int = 2) -> list[dict[str, Any]]:
    found = []
    for epoch in range(epochs):
        data.set_epoch(epoch)
        found += list(DataLoader(data, batch_size=1, num_workers=workers))
    return found


def assert_equal(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert set(a) == set(b)
        for key, value in a.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == b[key].dtype
                assert torch.equal(value, b[key]), key
            else:
                assert value == b[key]


@pytest.mark.parametrize("name", SETTINGS)
def test_samples_are_those_of_the_files(name: str, cohort: Path, tmp_path: Path) -> None:
    expected = samples(dataset(cohort, None, **SETTINGS[name]))
    assert_equal(samples(dataset(cohort, tmp_path, **SETTINGS[name])), expected)  # written in the first epoch
    assert_equal(samples(dataset(cohort, tmp_path, **SETTINGS[name])), expected)  # found


def test_nothing_is_computed_twice(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal(samples(dataset(cohort, tmp_path)), samples(dataset(cohort, tmp_path), workers=2))
    monkeypatch.setattr(SeededCacheDataset, "_deterministic", lambda *_: pytest.fail("it is in the store"))
    expected = samples(dataset(cohort, tmp_path))
    assert_equal(samples(dataset(cohort, tmp_path, cache_rate=1.0)), expected)


def test_two_dimensional_training_uses_it_too(tmp_path: Path, cohort: Path) -> None:
    pipeline = train_transforms(tuple(BRATS), mode="pdt", roi_size=[16, 16], spatial_dims=2)
    data = cohort_records(cohort)
    plain = SliceDataset(data, pipeline, seed=1, cache_rate=0.0, spatial_size=[16, 16])
    stored = SliceDataset(data, pipeline, 1, 0.0, [16, 16], store=CaseStore(tmp_path, pipeline))
    assert list(tmp_path.glob("*.json"))
    for index in (0, 7, 20):
        for key in ("image", "label", "modality_mask"):
            assert torch.equal(plain[index][key], stored[index][key])


def test_only_what_a_crop_needs_is_read(cohort: Path, tmp_path: Path) -> None:
    data = dataset(cohort, tmp_path)
    data.stored(0)
    sample = data.stored(0)
    array = np.load(next(tmp_path.glob("*.image.npy")), mmap_mode="r")
    assert sample["image"].shape[1:] == array.shape[1:]
    sample["image"][:] = 7.0  # a process's own copy of the page
    assert not (np.load(next(tmp_path.glob("*.image.npy"))) == 7.0).any()


def test_half_precision_is_close_and_the_same_every_time(cohort: Path, tmp_path: Path) -> None:
    first = samples(dataset(cohort, tmp_path, "float16"))
    assert_equal(samples(dataset(cohort, tmp_path, "float16")), first)
    for half, full in zip(first, samples(dataset(cohort, None)), strict=True):
        assert half["image"].dtype == torch.float32
        torch.testing.assert_close(half["image"], full["image"], rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="needs a roi_size"):
        dataset(cohort, tmp_path, "float16", **SETTINGS["whole"])


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"augment": "none"}, True),
        ({"dropout": {"prob": 0.5}}, True),
        ({"protocol": "legacy"}, False),
        ({"roi_size": [18] * 3}, False),
        ({"spacing": [2.0] * 3}, False),
        ({"crop_foreground": False}, False),
    ],
)
def test_settings_name_the_entry(cohort: Path, tmp_path: Path, change: dict[str, Any], same: bool) -> None:
    record = cohort_records(cohort)[0]
    names = [
        CaseStore(tmp_path, train_transforms(tuple(BRATS), **{**SETTINGS["published"], **more}))._name(record)
        for more in ({}, change)
    ]
    assert (names[0] == names[1]) == same
    assert names[0] != CaseStore(tmp_path, train_transforms(tuple(BRATS)[::-1]))._name(record)
    store = CaseStore(tmp_path, train_transforms(tuple(BRATS), **SETTINGS["published"]))
    assert store._name({**record, "available": ("t1",)}) != names[0]


def test_another_code_is_another_entry(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CaseStore(tmp_path, train_transforms(tuple(BRATS), **SETTINGS["published"]))
    before = store._name(cohort_records(cohort)[0])
    monkeypatch.setattr(case_store, "code_fingerprint", lambda: "another version")
    assert store._name(cohort_records(cohort)[0]) != before


def test_changed_files_are_noticed(cohort: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(cohort, tmp_path / "copy"))
    before = samples(dataset(cohort, tmp_path / "store"))
    data = dataset(copy, tmp_path / "store")
    assert_equal(samples(data), before)  # the same content elsewhere is found again
    assert len(list((tmp_path / "store").glob("*.json"))) == 3
    one, other = (data.data[i]["study"].images["t1"].path for i in (0, 1))
    stamp = one.stat()
    shutil.copyfile(other, one)
    os.utime(one, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert not torch.equal(samples(data)[0]["image"], before[0]["image"])
    assert_equal(samples(data), samples(dataset(copy, None)))


@pytest.mark.parametrize("damage", ["truncated", "gone", "index", "half an index"])
def test_damaged_entries_are_written_anew(cohort: Path, tmp_path: Path, damage: str) -> None:
    before = samples(dataset(cohort, tmp_path))
    array, index = sorted(tmp_path.glob("*.image.npy"))[0], sorted(tmp_path.glob("*.json"))[0]
    if damage == "truncated":
        array.write_bytes(array.read_bytes()[:-100])
    elif damage == "gone":
        array.unlink()
    elif damage == "index":
        index.write_text("{", encoding="utf-8")
    else:
        index.write_text(json.dumps({"sources": {}}), encoding="utf-8")
    assert_equal(samples(dataset(cohort, tmp_path)), before)
    assert fill_store(dataset(cohort, tmp_path)).found == 3
    assert not list(tmp_path.glob(".tmp*"))


def test_a_full_disk_costs_time_only(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    expected = samples(dataset(cohort, None))
    monkeypatch.setattr(np, "save", full)
    with pytest.warns(UserWarning, match="No space left"):
        found = samples(dataset(cohort, tmp_path))
    assert_equal(found, expected)
    assert not list(tmp_path.glob("*.json"))
    with pytest.warns(UserWarning, match="No space left"):
        result = fill_store(dataset(cohort, tmp_path))
    assert len(result.failures) == 3


def test_filling_names_bad_cases_and_does_the_others(cohort: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(cohort, tmp_path / "copy"))
    data = dataset(copy, tmp_path / "store")
    path = data.data[1]["study"].images["flair"].path
    path.write_bytes(path.read_bytes()[:50])
    result = fill_store(data, workers=2)
    assert (result.written, result.found, list(result.failures)) == (2, 0, [data.data[1]["case_id"]])
    assert str(path) in result.failures[data.data[1]["case_id"]]
    assert fill_store(data).found == 2
    with pytest.raises(ValueError, match="no store"):
        fill_store(dataset(copy, None))


def test_a_pipeline_must_say_its_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="says its settings"):
        CaseStore(tmp_path, Compose([]))
    assert not CaseStore(None, Compose([]))


def test_a_split_file_counts_by_content(tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    settings = []
    for text in ("a", "b", "a"):
        split.write_text(f"case_id,fold,available\n{text},train,t1+t2\n", encoding="utf-8")
        pipeline = train_transforms(tuple(BRATS), mode="idt", missing={"subsets": str(split)})
        settings.append(getattr(pipeline, case_store.SETTINGS)["missing"]["subsets"])
    assert settings[0] == settings[2] != settings[1]
