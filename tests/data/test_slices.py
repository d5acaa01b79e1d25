"""SliceDataset: every slice once, preprocessed as part of its volume."""

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, DistributedSampler

from medmap_monai.data.editions import get_edition
from medmap_monai.data.seeded_dataset import CohortError, SeededCacheDataset
from medmap_monai.data.slices import SliceDataset
from medmap_monai.transforms.pipelines import eval_transforms, train_transforms
from tests.transforms.make_study import make_study

NAMES = get_edition("myops2020").modalities
DEPTHS = (4, 3)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two hearts of 4 and 3 slices; the second has no T2. The outermost slices of a study are empty."""
    folder = tmp_path_factory.mktemp("hearts")
    return [
        {
            "case_id": f"h{i}",
            "study": make_study(folder, NAMES, (12, 14, depth), edition="myops2020", case_id=f"h{i}", seed=i),
            "available": None if i == 0 else NAMES[:2],
        }
        for i, depth in enumerate(DEPTHS)
    ]


def _pipeline(**options):
    return train_transforms(NAMES, **{"mode": "idt", "spatial_dims": 2, "augment": "none", **options})


def test_items_are_the_slices_of_the_preprocessed_volumes(records):
    dataset = SliceDataset(records, _pipeline())
    assert dataset.places == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    assert len(dataset) == 7
    for index, (study, place) in enumerate(dataset.places):
        sample = dataset[index]
        volume = eval_transforms(NAMES)({"study": records[study]["study"], "available": None})
        image = volume["image"].as_tensor()[..., place]
        image[~sample["present_mask"]] = 0
        torch.testing.assert_close(sample["image"], image)
        assert torch.equal(sample["label"], volume["label"].as_tensor()[..., place])
        assert (sample["case_id"], sample["slice"]) == (f"h{study}", place)
        assert type(sample["image"]) is torch.Tensor
    assert dataset[-1]["slice"] == 2
    assert [s["slice"] for s in dataset[1:3]] == [1, 2]
    assert dataset[4]["present_mask"].tolist() == [True, True, False]


@pytest.mark.parametrize("spatial_size", [(8, 8), (16, 16), (8, 20)])
def test_centre_crop_and_pad(records, spatial_size):
    dataset, whole = SliceDataset(records, _pipeline(), spatial_size=spatial_size), SliceDataset(records, _pipeline())
    sample, image = dataset[1], whole[1]["image"]
    assert sample["image"].shape == (3, *spatial_size)
    assert sample["label"].shape == (1, *spatial_size)
    rows, columns = (min(a, b) for a, b in zip((12, 14), spatial_size, strict=True))
    inner = image[:, (12 - rows) // 2 :, (14 - columns) // 2 :][:, :rows, :columns]
    padded = sample["image"][:, (spatial_size[0] - rows) // 2 :, (spatial_size[1] - columns) // 2 :]
    torch.testing.assert_close(padded[:, :rows, :columns], inner)
    assert sample["image"].abs().sum() == pytest.approx(inner.abs().sum().item(), rel=1e-5)  # zeros around


def test_random_crops_and_augmentation_are_a_function_of_seed_epoch_and_item(records):
    def epoch(dataset, number):
        dataset.set_epoch(number)
        return [dataset[i]["image"] for i in range(len(dataset))]

    options = {"roi_size": (8, 8), "augment": "published"}
    cached, loaded = (SliceDataset(records, _pipeline(**options), seed=3, cache_rate=rate) for rate in (1.0, 0.0))
    assert cached.places == [(0, 0), (0, 1), (1, 0)]  # cropped to the foreground
    first = epoch(cached, 0)
    assert all(image.shape == (3, 8, 8) for image in first)
    assert all(torch.equal(a, b) for a, b in zip(first, epoch(loaded, 0), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, epoch(cached, 1), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, epoch(cached, 0), strict=True))  # the cache is untouched


def test_slices_without_label_can_be_left_out(records):
    transform = _pipeline()
    volumes = SeededCacheDataset(records, transform)
    volumes._cache[0]["label"][..., 1] = 0
    dataset = SliceDataset([], transform, labelled_only=True)
    assert len(dataset) == 0
    dataset._load_cache_item = volumes._cache.__getitem__
    dataset.set_data(records)
    assert dataset.places == [(0, 0), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    for item in volumes._cache:
        item["label"][:] = 0
    with pytest.raises(ValueError, match="labelled_only"):
        dataset.set_data(records)


@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_bad_studies_are_all_named(records, tmp_path, cache_rate):
    broken = [make_study(tmp_path, NAMES, edition="myops2020", case_id=f"bad{i}") for i in range(2)]
    for study in broken:
        study.images["lge"].path.write_bytes(b"no image")
    data = [*records, *({"case_id": s.case_id, "study": s, "available": None} for s in broken)]
    with pytest.raises(CohortError, match=r"(?s)bad0.*bad1"):
        SliceDataset(data, _pipeline(), cache_rate=cache_rate)


def test_loaders_and_samplers_see_slices(records):
    dataset = SliceDataset(records, _pipeline(mode="idt_drop"))
    batches = list(DataLoader(dataset, batch_size=2, num_workers=1))
    assert [tuple(b["image"].shape) for b in batches] == [(2, 3, 12, 14)] * 3 + [(1, 3, 12, 14)]
    ranks = [DistributedSampler(dataset, num_replicas=2, rank=r, shuffle=False, even_divisible=False) for r in (0, 1)]
    assert sorted(i for rank in ranks for i in rank) == list(range(7))
