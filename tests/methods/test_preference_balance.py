from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medmap_monai.methods.preference_balance import PreferenceBalance

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "passion_balance.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN.files})


def run_epoch(balance: PreferenceBalance, epoch: int, distances: Tensor, masks: Tensor) -> None:
    """Distances and masks (I, B, M)."""
    for distance, mask in zip(distances, masks, strict=True):
        balance.accumulate(distance, mask)
    balance.end_epoch(epoch)


def test_all_eight_published_cases_are_there() -> None:
    assert len(CASES) == 8


@pytest.mark.parametrize("case", CASES)
def test_gate_and_beta_are_the_published_ones(case: str) -> None:
    values = {key.split("/")[1]: torch.from_numpy(GOLDEN[key]) for key in GOLDEN.files if key.startswith(f"{case}/")}
    perfect_data = case.startswith("pdt")
    balance = PreferenceBalance(
        4,
        granularity="batch_sum",
        distance_divisor="iterations" if perfect_data else "count",
        warmup_epochs=int(values["in_start_epoch"]),
    )
    masks = torch.ones_like(values["in_mask"]) if perfect_data else values["in_mask"]
    for epoch, (distances, present) in enumerate(zip(values["in_dist"], masks, strict=True)):
        for i, (distance, mask) in enumerate(zip(distances, present, strict=True)):
            preference = balance.preference(distance, mask)
            # published sign: distance over mean minus one; where it is 0/0 there, it is 0 here
            expected = torch.nan_to_num(values["rp_iter"][epoch, i], nan=0.0)
            torch.testing.assert_close(-preference.sum(0), expected)
            gate = balance.gate(preference, mask)
            assert torch.equal(gate, values["rp_mask"][epoch, i] & mask)
            balance.accumulate(distance, mask)
        balance.end_epoch(epoch)
        torch.testing.assert_close(balance.epoch_distance, values["epoch_dist_m"][epoch])
        torch.testing.assert_close(balance.epoch_preference, values["rp_epoch"][epoch], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(balance.beta, values["imb_beta"][epoch], rtol=0, atol=2e-6)
        assert float(balance.eta) == pytest.approx(float(values["eta"][epoch]), rel=1e-6)


@pytest.mark.parametrize("granularity", ["sample", "batch_sum"])
def test_a_sample_without_information_does_not_silence_its_batch_mates(granularity: str) -> None:
    balance = PreferenceBalance(3, granularity=granularity)
    distance = torch.tensor([[0.1, 0.2, 0.6], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [float("nan"), 0.2, 0.2]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False], [True, True, False]])
    preference = balance.preference(distance, mask)
    assert preference.isfinite().all()
    assert preference[1:].abs().max() == 0
    alone = balance.gate(balance.preference(distance[:1], mask[:1]), mask[:1])
    assert torch.equal(balance.gate(preference, mask)[:1], alone)
    assert alone.tolist() == [[False, False, True]]
    balance.accumulate(distance, mask)
    balance.end_epoch(0)
    assert balance.beta.isfinite().all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [False, False, True]),
        ({"gate": "rp_positive"}, [True, True, False]),
        ({"gate": "off"}, [True, True, True]),
        ({"gate_tolerance": 0.45}, [False, True, True]),
        ({"gate_tolerance": -1.5}, [False, False, False]),
        ({"gate": "rp_positive", "gate_tolerance": -0.5}, [True, False, False]),
    ],
)
def test_gate_switches(options: dict[str, object], expected: list[bool]) -> None:
    """Preferences are 1 - 1/3, 1 - 2/3 and 1 - 2."""
    balance = PreferenceBalance(3, **options)  # type: ignore[arg-type]
    mask = torch.ones(1, 3, dtype=torch.bool)
    preference = balance.preference(torch.tensor([[0.1, 0.2, 0.6]]), mask)
    torch.testing.assert_close(preference, torch.tensor([[2 / 3, 1 / 3, -1.0]]))
    assert balance.gate(preference, mask).tolist() == [expected]


def test_the_gate_judges_samples_on_their_own_by_default() -> None:
    mask = torch.ones(2, 2, dtype=torch.bool)
    distance = torch.tensor([[0.1, 0.3], [0.8, 0.1]])
    sample, batch = PreferenceBalance(2), PreferenceBalance(2, granularity="batch_sum")
    preference = sample.preference(distance, mask)
    assert sample.gate(preference, mask).tolist() == [[False, True], [True, False]]
    assert batch.gate(preference, mask).tolist() == [[True, False], [True, False]]


def test_iterations_as_divisor_make_rare_modalities_look_near() -> None:
    """The published normalisation of IDT-drop: equal distances, but modality 1 is seen once in four steps."""
    distances = torch.full((4, 1, 2), 0.2)
    masks = torch.tensor([[[True, True]], [[True, False]], [[True, False]], [[True, False]]])
    fixed, published = PreferenceBalance(2), PreferenceBalance(2, distance_divisor="iterations")
    run_epoch(fixed, 0, distances, masks)
    run_epoch(published, 0, distances, masks)
    torch.testing.assert_close(fixed.beta, torch.ones(2))
    torch.testing.assert_close(published.epoch_distance, torch.tensor([0.2, 0.05]))
    assert published.beta[0] > 1 > published.beta[1]


def test_beta_of_an_unseen_modality_keeps_its_share_and_an_empty_epoch_changes_nothing() -> None:
    balance = PreferenceBalance(3)
    run_epoch(balance, 0, torch.tensor([[[0.1, 0.3, 9.0]]]), torch.tensor([[[True, True, False]]]))
    assert balance.beta[0] < balance.beta[2] < balance.beta[1]
    assert balance.epoch_preference[2].isnan()
    before = balance.beta.clone()
    balance.end_epoch(1)
    assert torch.equal(balance.beta, before)


def test_eta_is_a_function_of_the_epoch() -> None:
    published = PreferenceBalance(4)
    assert [round(published.eta_at(e), 6) for e in (0, 99, 100, 200, 299)] == [0.015, 0.015, 0.0225, 0.03375, 0.03375]
    late = PreferenceBalance(4, warmup_epochs=20)
    assert [round(late.eta_at(e), 6) for e in (20, 99, 100, 200)] == [0.01, 0.01, 0.015, 0.0225]
    run_epoch(still := PreferenceBalance(2, eta=0), 0, torch.tensor([[[0.1, 0.3]]]), torch.ones(1, 1, 2).bool())
    assert torch.equal(still.beta, torch.ones(2))


@given(
    seed=st.integers(0, 10_000),
    modalities=st.integers(1, 5),
    epochs=st.integers(1, 4),
    batch=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_beta_is_finite_positive_and_of_norm_sqrt_m(seed: int, modalities: int, epochs: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    balance = PreferenceBalance(modalities, eta=0.5, eta_interval=1)
    for epoch in range(epochs):
        distances = torch.rand(3, batch, modalities, generator=generator) ** 4
        masks = torch.rand(3, batch, modalities, generator=generator) > 0.5
        run_epoch(balance, epoch, distances * masks, masks)
        assert balance.beta.isfinite().all()
        assert balance.beta.min() > 0
        assert float(balance.beta.norm()) == pytest.approx(modalities**0.5, rel=1e-5)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_relabelling_modalities_relabels_everything(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(4, generator=generator)
    distances = torch.rand(2, 2, 4, generator=generator)
    masks = torch.rand(2, 2, 4, generator=generator) > 0.3
    one, other = PreferenceBalance(4), PreferenceBalance(4)
    run_epoch(one, 0, distances, masks)
    run_epoch(other, 0, distances[..., order], masks[..., order])
    torch.testing.assert_close(one.beta[order], other.beta)


def test_state_dict_restores_the_middle_of_an_epoch_exactly() -> None:
    generator = torch.Generator().manual_seed(3)
    distances, masks = torch.rand(6, 2, 4, generator=generator), torch.rand(6, 2, 4, generator=generator) > 0.4
    whole = PreferenceBalance(4)
    run_epoch(whole, 0, distances[:3], masks[:3])
    for i in (3, 4):
        whole.accumulate(distances[i], masks[i])
    resumed = PreferenceBalance(4)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for balance in (whole, resumed):
        balance.accumulate(distances[5], masks[5])
        balance.end_epoch(1)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not torch.equal(whole.beta, torch.ones(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "open"}, "rp_negative"),
        ({"granularity": "voxel"}, "batch_sum"),
        ({"distance_divisor": "epochs"}, "iterations"),
        ({"beta_min": 2.0}, r"must lie in its bounds; got \[2.0, 4.0\]"),
        ({"warmup_epochs": -1}, "got 100, 0.01, -1"),
        ({"modalities": 0}, "at least 1, got 0"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PreferenceBalance(**{"modalities": 4, **options})  # type: ignore[arg-type]
