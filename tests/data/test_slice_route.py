"""MyoPS2020 end to end: volumes in, a 2-D network trained on slices, volumes out on the grid of the study."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader

from medmap_monai.data.cohort import cohort_records
from medmap_monai.data.editions import get_edition
from medmap_monai.data.phantom import write_cohort
from medmap_monai.data.slices import SliceDataset
from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.losses.segmentation import WeightedCEDiceLoss
from medmap_monai.methods.dmaf import DMAF
from medmap_monai.networks.dmafnet import DMAFNet
from medmap_monai.transforms.pipelines import inference_transforms, save_transforms, train_transforms

EDITION = get_edition("myops2020")
NAMES = EDITION.modalities


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two synthetic hearts of 40 x 40 x 5 voxels; the second has no T2."""
    folder = tmp_path_factory.mktemp("myops") / "cohort"
    write_cohort(folder, "myops2020", cases=2, shape=(40, 40, 5), seed=3, affine="oblique", absent={"last": ["t2"]})
    return cohort_records(folder, "myops2020", fold=None)


def _network() -> DMAFNet:
    torch.manual_seed(0)
    return DMAFNet(2, len(NAMES), len(EDITION.classes), (8, 16, 32), 1, dmaf={"depth": 1, "dropout": 0.0})


def test_training_on_slices_learns(records):
    """Slices of an incomplete cohort, through the whole objective: finite, and the label is learned."""
    dataset = SliceDataset(
        records, train_transforms(NAMES, mode="idt", augment="none", spatial_dims=2), spatial_size=(48, 48)
    )
    assert len(dataset) == 10
    loader = DataLoader(dataset, batch_size=5)
    method = DMAF(_network(), segmentation_loss=WeightedCEDiceLoss(batch=True))
    optimizer = torch.optim.Adam(method.parameters(), lr=5e-3)
    history = []
    for epoch in range(8):
        dataset.set_epoch(epoch)
        for batch in loader:
            output = method(batch["image"], batch["modality_mask"], batch["present_mask"], batch["label"])
            optimizer.zero_grad()
            torch.stack(list(output.losses.values())).sum().backward()
            method.after_backward()
            optimizer.step()
            history.append({name: float(value.detach()) for name, value in output.losses.items()})
    assert np.isfinite([list(step.values()) for step in history]).all()
    for name in ("fused", "modality"):
        assert np.mean([s[name] for s in history[-2:]]) < 0.9 * np.mean([s[name] for s in history[:2]])
    assert method.monitor.seen[0].tolist() == [16, 16, 8]  # T2 belongs to the first study, and so to the first batch


@pytest.mark.parametrize("roi_size", [(32, 32), (-1, -1)])
def test_prediction_is_saved_on_the_grid_of_the_study(records, tmp_path, roi_size):
    record, network = records[1], _network().eval()
    sample = inference_transforms(NAMES)(record)
    mask = sample["modality_mask"][None]
    assert mask.tolist() == [[True, True, False]]
    with torch.no_grad():
        logits = ModalitySlidingWindowInferer(roi_size, sw_batch_size=3)(sample["image"][None], network, mask)
    assert logits.shape == (1, 6, 40, 40, 5)
    saved = save_transforms(tmp_path)({**sample, "pred": logits[0]})
    image, reference = nib.load(saved["saved_to"]), nib.load(record["study"].images["bssfp"].path)
    assert image.shape == reference.shape
    np.testing.assert_allclose(image.affine, reference.affine, atol=1e-4)
    assert set(np.unique(np.asarray(image.dataobj))) <= set(EDITION.labels)  # 200, 500, 600, 1220, 2221

    if roi_size == (-1, -1):  # one window per slice: what the network says of each slice
        with torch.no_grad():
            slices = network(sample["image"].as_tensor().movedim(-1, 0), mask.expand(5, -1))
        torch.testing.assert_close(logits[0].as_tensor(), slices.movedim(0, -1), rtol=1e-3, atol=1e-4)


def test_all_subsets_of_a_volume_with_one_encoding(records):
    network = _network().eval()
    sample = inference_transforms(NAMES)(records[0])
    image = sample["image"][None]
    scores = SubsetSweepInferer((32, 32), output="scores")(image, network, sample["present_mask"][None])
    assert len(scores) == 7
    single = ModalitySlidingWindowInferer((32, 32))
    with torch.no_grad():
        for subset, result in scores.items():
            alone = single(image, network, torch.tensor([subset]))
            torch.testing.assert_close(result.as_tensor(), alone.as_tensor(), rtol=1e-3, atol=1e-4)


def test_samples_of_a_batch_keep_their_own_masks(records):
    network = _network().eval()
    image = torch.stack([inference_transforms(NAMES)(record)["image"].as_tensor() for record in records])
    masks = torch.tensor([[True, False, True], [False, True, False]])
    inferer = ModalitySlidingWindowInferer((32, 32))
    with torch.no_grad():
        together = inferer(image, network, masks)
        for row in range(2):
            alone = inferer(image[row : row + 1], network, masks[row : row + 1])[0]
            torch.testing.assert_close(together[row], alone, rtol=1e-3, atol=1e-4)
