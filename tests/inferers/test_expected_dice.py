"""A decision by expected Dice: how far a finding reaches, never whether there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medmap_monai.inferers.expected_dice import ExpectedDiceDecision, best_threshold
from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.networks.unet import ModalityUNet
from medmap_monai.utils.describe import describe

NESTED = [[1, 2, 3], [1, 3], [3]]


def blob(height: float, size: int = 20, centre: tuple[float, ...] = (9, 9, 9), width: float = 3.0) -> torch.Tensor:
    """A logit that is ``height`` at the centre and falls by one every ``width`` voxels."""
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float32),) * 3, indexing="ij")
    distance = torch.stack([(a - c) ** 2 for a, c in zip(axes, centre, strict=True)]).sum(0).sqrt()
    return height - distance / width


def scores_of(*foreground: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.zeros_like(foreground[0]), *foreground])[None]


@pytest.mark.parametrize("power", [0.3, 1, 4, 20])
def test_the_threshold_is_the_best_of_all(power: float) -> None:
    p = torch.rand(5000, generator=torch.Generator().manual_seed(1)).double() ** power
    threshold, expected = best_threshold(p)
    ranked = p.sort(descending=True).values
    every = 2 * ranked.cumsum(0) / (torch.arange(1, len(p) + 1) + p.sum())
    assert expected == pytest.approx(float(every.max()), rel=1e-12)
    assert threshold == pytest.approx(expected / 2)
    assert int((p > threshold).sum()) == int(every.argmax()) + 1


def test_without_any_chance_there_is_no_region() -> None:
    assert best_threshold(torch.zeros(4, 4)) == (0.5, 0.0)
    assert best_threshold(torch.ones(7)) == (0.5, 1.0)


def test_the_found_masks_have_the_highest_expected_dice() -> None:
    """The expectation itself, over drawn truths, is higher than that of the largest score."""
    scores = scores_of(blob(0.4, width=4.0))
    decided = ExpectedDiceDecision([[1]])(scores).argmax(1)[0] > 0
    plain = scores.argmax(1)[0] > 0
    truths = torch.rand(200, *plain.shape, generator=torch.Generator().manual_seed(3)) < scores[0, 1].sigmoid()

    def mean_dice(mask: torch.Tensor) -> float:
        both = (truths & mask).sum((1, 2, 3)).double()
        return float((2 * both / (truths.sum((1, 2, 3)) + mask.sum())).mean())

    assert int(plain.sum()) < int(decided.sum())
    assert mean_dice(decided) > mean_dice(plain) + 0.1


def test_where_the_network_is_sure_nothing_changes() -> None:
    classes = torch.randint(0, 4, (2, 9, 8, 7), generator=torch.Generator().manual_seed(0))
    scores = 40.0 * torch.nn.functional.one_hot(classes, 4).movedim(-1, 1).float()
    assert torch.equal(ExpectedDiceDecision(NESTED)(scores).argmax(1), classes)
    assert torch.equal(ExpectedDiceDecision(NESTED)(scores.softmax(1), probabilities=True).argmax(1), classes)


def test_regions_lie_in_each_other_and_reach_further_the_higher_the_temperature() -> None:
    scores = scores_of(blob(1.0) - 0.5, blob(1.5), blob(1.2) - 0.6)
    volumes = []
    for temperature in (1.0, 1.3):
        found = ExpectedDiceDecision(NESTED, temperature)(scores).argmax(1)
        volumes.append(int((found > 0).sum()))
    assert int((scores.argmax(1) > 0).sum()) < volumes[0] < volumes[1]


def test_what_is_nowhere_the_largest_score_is_not_found() -> None:
    """Whether there is a finding, and whether it has a core, stays with the largest score."""
    nothing = scores_of(blob(-0.1), blob(-0.2), blob(-0.3))
    assert torch.equal(ExpectedDiceDecision(NESTED)(nothing), nothing)
    no_core = scores_of(blob(1.0) - 0.3, blob(1.0), blob(1.0) - 0.4)
    found = ExpectedDiceDecision(NESTED)(no_core).argmax(1)
    assert set(found.unique().tolist()) == {0, 2}
    assert int((found > 0).sum()) > int((no_core.argmax(1) > 0).sum())


def test_a_second_place_that_never_wins_is_left_alone() -> None:
    """Voxels above the threshold grow onto a finding only where they hang together with it."""
    near, far = blob(1.2, 40, (9, 9, 9)), blob(-0.05, 40, (30, 30, 30), 9.0)
    scores = scores_of(torch.maximum(near, far))
    found = ExpectedDiceDecision([[1]])(scores).argmax(1)[0]
    threshold, _ = best_threshold(scores[0, 1].sigmoid())
    assert float(scores[0, 1, 30, 30, 30].sigmoid()) > threshold
    assert int(found[30, 30, 30]) == 0
    assert int(found[9, 9, 9]) == 1


def test_a_finding_that_is_too_small_is_neither_grown_nor_removed() -> None:
    """So that removing small findings, and telling of it, does the same as without this decision."""
    large, small = blob(1.2, 40, (10, 10, 10)), blob(0.5, 40, (32, 32, 32), 2.0)
    scores = scores_of(torch.maximum(large, small))
    plain = scores.argmax(1)[0]
    corner = (slice(26, 40),) * 3
    count = int(plain[corner].sum())
    assert 0 < count < int(plain.sum()) / 3
    found = ExpectedDiceDecision([[1]], smallest_seed=count + 1)(scores).argmax(1)[0]
    assert torch.equal(found[corner], plain[corner])
    assert int(found.sum()) > int(plain.sum())
    grown = ExpectedDiceDecision([[1]], smallest_seed=count)(scores).argmax(1)[0]
    assert int(grown[corner].sum()) > count
    assert torch.equal(ExpectedDiceDecision([[1]], smallest_seed=10**6)(scores), scores)
    near = ExpectedDiceDecision([[1]], smallest_seed=count + 1, reach=5)(scores)
    assert torch.equal(near[0, :, *corner], scores[0, :, *corner])  # also for whoever interpolates


def test_a_finding_grows_no_further_than_its_reach() -> None:
    """And what lies beyond has no say: the small probabilities of a whole volume would lower the threshold."""
    scores = scores_of(blob(1.0, 40, (19, 19, 19), 3.0).clamp(min=-4.0))
    plain = scores.argmax(1)[0] > 0
    volumes = []
    for reach in (1, 2, 4, None):
        found = ExpectedDiceDecision([[1]], 1.5, reach=reach)(scores).argmax(1)[0] > 0
        volumes.append(int(found.sum()))
        assert not bool((plain & ~found).any())
        if reach is not None:
            apart = torch.nn.functional.max_pool3d(plain[None].float(), 2 * reach + 1, 1, reach)[0] == 0
            assert not bool((found & apart).any())
    assert int(plain.sum()) < volumes[0] <= volumes[1] <= volumes[2] < volumes[3] / 2


def test_classes_that_share_a_region_keep_their_order() -> None:
    scores = scores_of(blob(1.0), blob(1.0, centre=(9, 9, 13)))
    found = ExpectedDiceDecision([[1, 2]])(scores).argmax(1)[0]
    assert int((found > 0).sum()) > int((scores.argmax(1) > 0).sum())
    assert torch.equal(found[found > 0], (scores[0, 1:].argmax(0) + 1)[found > 0])


@pytest.mark.parametrize("blend", ["logits", "probabilities"])
def test_both_inferers_decide_alike(blend: str) -> None:
    torch.manual_seed(0)
    network = ModalityUNet(3, 2, 3, channels=(4, 8), deep_supervision=0).eval()
    with torch.no_grad():  # so that some voxels are of each class
        for parameter in network.parameters():
            parameter.mul_(2)
    image = MetaTensor(torch.rand(1, 2, 12, 17, 10, generator=torch.Generator().manual_seed(0)))
    options = {"roi_size": (8, 8, 7), "sw_batch_size": 3, "blend": blend}
    decision = ExpectedDiceDecision([[1, 2], [2]], 1.5)
    labels = SubsetSweepInferer(**options, decision=decision)(image, network)
    scores = SubsetSweepInferer(**options, decision=decision, output="scores", memory_limit=1)(image, network)
    changed = 0
    for mask, found in labels.items():
        with torch.no_grad():
            plain = ModalitySlidingWindowInferer(**options)(image, network, torch.tensor([mask]))
            alone = ModalitySlidingWindowInferer(**options, decision=decision)(image, network, torch.tensor([mask]))
        assert isinstance(alone, MetaTensor)
        assert found.dtype == torch.uint8
        assert torch.equal(alone.argmax(1, keepdim=True).byte(), torch.as_tensor(found))
        assert torch.equal(torch.as_tensor(scores[mask]).argmax(1, keepdim=True).byte(), torch.as_tensor(found))
        changed += int((plain.argmax(1, keepdim=True) != torch.as_tensor(found)).sum())
    assert changed > 0


def test_scores_that_are_not_finite_do_not_become_labels() -> None:
    class Broken(ModalityUNet):
        def decode(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            output = super().decode(*args, **kwargs)
            return output._replace(logits=output.logits * float("nan"))

    network = Broken(3, 2, 3, channels=(4, 8), deep_supervision=0).eval()
    decision = ExpectedDiceDecision([[1, 2]])
    image = torch.rand(1, 2, 8, 8, 8)
    for output in ("labels", "scores"):
        with pytest.raises(ValueError, match="NaN or Inf"):
            SubsetSweepInferer(8, decision=decision, output=output)(image, network)
    with torch.no_grad():
        assert not bool(torch.isfinite(ModalitySlidingWindowInferer(8, decision=decision)(image, network)).all())


@pytest.mark.parametrize(
    ("regions", "options", "message"),
    [
        ([], {}, "lists of class indices"),
        ([[1, 2], []], {}, "lists of class indices"),
        ([[1, 2], [3]], {}, "must be nested"),
        ([[1, 2], [1, 2]], {}, "must be nested"),
        ([[0, 1]], {}, "from 1"),
        ([[1], []], {}, "lists of class indices"),
        ([[1]], {"temperature": 0.0}, "must be positive"),
        ([[1]], {"smallest_seed": -1}, "must not be negative"),
        ([[1]], {"reach": 0}, "must be positive"),
    ],
)
def test_settings_that_mean_nothing_are_refused(regions, options, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        ExpectedDiceDecision(regions, **options)


def test_regions_must_hold_every_class_of_the_scores() -> None:
    with pytest.raises(ValueError, match=r"4 class scores.*\[0, 1, 2\]"):
        ExpectedDiceDecision([[1, 2]])(torch.zeros(1, 4, 2, 2, 2))


def test_a_record_describes_the_decision() -> None:
    """So that another temperature makes a result anew."""
    told = describe(ModalitySlidingWindowInferer(8, decision=ExpectedDiceDecision(NESTED, 1.5, 5)))
    assert told["decision"]["temperature"] == 1.5
    assert np.array_equal(told["decision"]["regions"][1], [1, 3])
