from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, MapTransform, RandomizableTransform

from medmap_monai.data.seeded_dataset import CohortError, SeededCacheDataset, item_seed
from medmap_monai.data.study import StudyError
from medmap_monai.transforms.modality_dropout import RandModalityDropoutd

PRESENT = torch.ones(4, dtype=torch.bool)


class _Noise(RandomizableTransform):
    def __call__(self, data):
        return {**data, "noise": torch.from_numpy(self.R.random_sample(3))}


class _Load(MapTransform):
    """Deterministic first part; some cases are broken."""

    def __init__(self, broken=()):
        super().__init__(["case_id"])
        self.broken = broken
        self.calls = []

    def __call__(self, data):
        self.calls.append(data["case_id"])
        if data["case_id"] in self.broken:
            raise StudyError(data["case_id"], "is broken")
        return {**data, "image": torch.zeros(2)}


def _dataset(n=7, seed=0, broken=(), **options):
    data = [{"case_id": f"c{i}", "present_mask": PRESENT} for i in range(n)]
    return SeededCacheDataset(data, Compose([_Load(broken), _Noise(), RandModalityDropoutd()]), seed=seed, **options)


def _epochs(dataset, epochs, workers=0, persistent=False, order=None):
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, sampler=order, persistent_workers=persistent)
    drawn = {}
    for epoch in epochs:
        dataset.set_epoch(epoch)
        for batch in loader:
            for i, case in enumerate(batch["case_id"]):
                drawn[epoch, case] = (*batch["noise"][i].tolist(), *batch["modality_mask"][i].tolist())
    return drawn


@pytest.mark.parametrize(
    ("workers", "persistent", "cache_rate"), [(0, False, 0.5), (1, False, 0.0), (2, False, 1.0), (2, True, 0.5)]
)
def test_samples_do_not_depend_on_workers_or_cache(workers, persistent, cache_rate):
    expected = _epochs(_dataset(), range(3))
    assert _epochs(_dataset(cache_rate=cache_rate), range(3), workers, persistent) == expected


def test_a_resumed_run_equals_an_uninterrupted_one():
    whole = _epochs(_dataset(), range(4))
    resumed = _epochs(_dataset(), range(2, 4))
    assert {k: v for k, v in whole.items() if k[0] >= 2} == resumed


def test_samples_do_not_depend_on_the_order_of_access():
    assert _epochs(_dataset(), range(2), order=[6, 2, 0, 1, 5, 4, 3]) == _epochs(_dataset(), range(2))


def test_every_item_epoch_and_seed_is_different():
    drawn = [*_epochs(_dataset(), range(3)).values(), *_epochs(_dataset(seed=1), range(3)).values()]
    assert len(set(drawn)) == len(drawn) == 42


def test_asking_twice_gives_the_same_sample_and_the_cache_stays_clean():
    dataset = _dataset()
    first, second = dataset[3], dataset[-4]
    assert torch.equal(first["noise"], second["noise"])
    first["image"] += 1
    assert not dataset[3]["image"].any()


@pytest.mark.parametrize(("lazy", "calls"), [(False, 7), (True, 2)])
def test_cache_is_filled_at_once_or_when_used(lazy, calls):
    dataset = _dataset(lazy=lazy)
    for _ in range(3):
        _ = dataset[0], dataset[5]
    assert len(dataset.transform.transforms[0].calls) == calls


def test_item_seeds_are_fixed_numbers():
    assert item_seed(0, 0, 0) == int(np.random.SeedSequence((0, 0, 0)).generate_state(1)[0])
    assert [item_seed(1, 2, 3), item_seed(1037, 299, 218)] == [3822189696, 4233669618]


def test_empty_data():
    dataset = SeededCacheDataset([], Compose([_Noise()]))
    assert len(dataset) == 0
    assert list(DataLoader(dataset, batch_size=2)) == []


def test_all_bad_cases_are_named_at_once():
    with pytest.raises(CohortError, match="2 studies cannot be used") as error:
        _dataset(broken=("c1", "c4"))
    assert [e.case_id for e in error.value.errors] == ["c1", "c4"]
    assert "case c1: is broken" in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


@pytest.mark.parametrize("options", [{"cache_rate": 0.0}, {"lazy": True}])
@pytest.mark.parametrize("workers", [0, 1])
def test_without_a_filled_cache_a_bad_case_is_named_when_it_is_used(options, workers):
    dataset = _dataset(broken=("c1",), **options)
    assert dataset[0]["case_id"] == "c0"
    # torch cannot rebuild an exception of several arguments from a worker's; the text arrives all the same
    with pytest.raises(RuntimeError if workers else StudyError, match="case c1: is broken"):
        list(DataLoader(dataset, batch_size=1, num_workers=workers))


def test_other_errors_pass_through():
    class Fails(MapTransform):
        def __call__(self, data):
            raise KeyError("surprise")

    with pytest.raises(RuntimeError, match="applying transform"):
        SeededCacheDataset([{"case_id": "a"}], Compose([Fails(["case_id"])]))


def test_ill_arguments():
    with pytest.raises(ValueError, match="seed"):
        _dataset(seed=-1)
    with pytest.raises(ValueError, match="epoch"):
        _dataset().set_epoch(-1)
