"""DynamicTrainingMonitor: numbers computed by hand, resume, and what never happens (NaN, drift)."""

from __future__ import annotations

import pytest
import torch

from medmap_monai.methods.training_monitor import DynamicTrainingMonitor

NONE = float("nan")  # what an absent modality's sum may hold: it must not be looked at

# Three steps with two terms and three modalities, momentum 1/2. Sums over samples, and number of samples.
STEPS = [
    # the third modality is not there: its ratio is 1
    {"sums": [[2.0, 8.0, NONE], [3.0, 2.0, NONE]], "counts": [1, 2, 0]},
    # only the third: the others keep their gaps
    {"sums": [[NONE, NONE, 6.0], [NONE, NONE, 12.0]], "counts": [0, 0, 1]},
    # all: 1/2 old + 1/2 new
    {"sums": [[40.0, 0.0, 2.0], [4.0, 1.0, 0.0]], "counts": [2, 1, 1]},
]
EXPECTED = [
    {
        "gaps": [[2, 4, 0], [3, 1, 0]],
        # term 1: 2/3, 4/3 (mean 3); term 2: 3/2, 1/2 (mean 2); r = 13/12, 11/12, 1
        "weights": [1.083333, 0.916667, 1.0],
        # roots 1.040833, 0.957427, 1, times 3 / 2.998260
        "scales": [1.041437, 0.957983, 1.000580],
    },
    {
        "gaps": [[2, 4, 6], [3, 1, 12]],
        # term 1: 1/2, 1, 3/2 (mean 4); term 2: 9/16, 3/16, 9/4 (mean 16/3); r = 0.53125, 0.59375, 1.875
        "weights": [0.53125, 0.59375, 1.875],
        # roots 0.728869, 0.770552, 1.369306, times 3 / 2.868727
        "scales": [0.762222, 0.805812, 1.431966],
    },
    {
        "gaps": [[11, 2, 4], [2.5, 1, 6]],
        # term 1: 33/17, 6/17, 12/17 (mean 17/3); term 2: 15/19, 6/19, 36/19 (mean 19/6)
        "weights": [1.365325, 0.334365, 1.300310],
        # roots 1.168471, 0.578243, 1.140311, times 3 / 2.887025
        "scales": [1.214196, 0.600871, 1.184934],
    },
]


def _monitor(**options: object) -> DynamicTrainingMonitor:
    kwargs = {"modalities": 3, "terms": ("covariance", "prototype"), "momentum": 0.5, **options}
    return DynamicTrainingMonitor(**kwargs)  # type: ignore[arg-type]


def _feed(monitor: DynamicTrainingMonitor, steps: list[dict[str, list]]) -> None:
    for step in steps:
        monitor.update(torch.tensor(step["sums"]), torch.tensor(step["counts"]))


def test_sequence_computed_by_hand():
    monitor = _monitor()
    for step, expected in zip(STEPS, EXPECTED, strict=True):
        _feed(monitor, [step])
        for name, value in expected.items():
            torch.testing.assert_close(
                getattr(monitor, name), torch.tensor(value, dtype=torch.float32), atol=2e-6, rtol=0
            )
    assert int(monitor.steps) == 3
    assert monitor.seen.tolist() == [[2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize(
    ("gaps", "options", "weights", "scales"),
    [
        # r = 0.2, 0.8, 2.0; clipped to [0.5, 1.5]: 0.5, 0.8, 1.5, times 3 / 2.8
        ([1.0, 4.0, 10.0], {"weight_bounds": (0.5, 1.5)}, [0.535714, 0.857143, 1.607143], None),
        # squared: 0.04, 0.64, 4; clipped to [0.1, 4]: sum 4.74
        ([1.0, 4.0, 10.0], {"alpha": 2.0}, [0.063291, 0.405063, 2.531646], None),
        ([1.0, 4.0, 10.0], {"alpha": 0.0, "gamma": 0.0}, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        # roots 0.447214, 0.894427, 1.414214; the first is clipped to 0.5: sum 2.808641
        ([1.0, 4.0, 10.0], {}, [0.2, 0.8, 2.0], [0.534066, 0.955365, 1.510569]),
        ([0.0, 0.0, 0.0], {}, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),  # students equal the teacher: 0/0 is 1 here
        # r = 0, 0, 3; weights 0.1, 0.1, 3: sum 3.2; scales 0.5, 0.5, 1.732051: sum 2.732051
        ([0.0, 0.0, 3.0], {}, [0.093750, 0.093750, 2.812500], [0.549038, 0.549038, 1.901924]),
    ],
)
def test_bounds_and_exponents(gaps, options, weights, scales):
    monitor = _monitor(terms=("prototype",), **options)
    monitor.update(torch.tensor([gaps]), torch.ones(3))
    torch.testing.assert_close(monitor.weights, torch.tensor(weights), atol=2e-6, rtol=0)
    if scales is not None:
        torch.testing.assert_close(monitor.scales, torch.tensor(scales), atol=2e-6, rtol=0)


def test_warm_up_collects_gaps_only():
    monitor, free = _monitor(warmup_steps=2), _monitor()
    for number, step in enumerate(STEPS):
        _feed(monitor, [step])
        _feed(free, [step])
        assert torch.equal(monitor.gaps, free.gaps)
        if number < 2:
            assert torch.equal(monitor.weights, torch.ones(3))
            assert torch.equal(monitor.scales, torch.ones(3))
    assert torch.equal(monitor.weights, free.weights)
    assert torch.equal(monitor.scales, free.scales)


def test_a_step_without_anything_and_values_that_are_not_finite_change_nothing():
    monitor = _monitor()
    _feed(monitor, STEPS)
    before = {name: value.clone() for name, value in monitor.state_dict().items()}
    monitor.update(torch.full((2, 3), float("nan")), torch.zeros(3))
    monitor.update(torch.tensor([[float("inf"), float("nan"), -float("inf")]] * 2), torch.ones(3))
    for name, value in monitor.state_dict().items():
        assert torch.equal(value, before[name]) or name == "steps"


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_resume_is_exact(tmp_path, cut):
    monitor = _monitor(warmup_steps=1)
    _feed(monitor, STEPS[:cut])
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    resumed = _monitor(warmup_steps=1)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    _feed(monitor, STEPS[cut:])
    _feed(resumed, STEPS[cut:])
    assert all(torch.equal(a, b) for a, b in zip(monitor.buffers(), resumed.buffers(), strict=True))
    assert {name for name, _ in monitor.named_buffers()} == set(monitor.state_dict())


def test_no_gradient_passes_through():
    sums = torch.ones(2, 3, requires_grad=True)
    monitor = _monitor()
    monitor.update(sums, torch.ones(3))
    assert not monitor.weights.requires_grad
    assert not monitor.gaps.requires_grad


def test_report():
    monitor = _monitor()
    _feed(monitor, STEPS[:1])
    report = monitor.balance_report()
    assert sorted(report) == ["gap_covariance", "gap_prototype", "gradient_scale", "loss_weight"]
    torch.testing.assert_close(report["gap_prototype"], torch.tensor([3.0, 1.0, NONE]), equal_nan=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": 0}, "modalities and terms"),
        ({"terms": ()}, "modalities and terms"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_bounds": (0.0, 4.0)}, "weight_bounds"),
        ({"scale_bounds": (1.5, 2.0)}, "scale_bounds"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"grad_mode": "adam"}, "grad"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        _monitor(**options)
