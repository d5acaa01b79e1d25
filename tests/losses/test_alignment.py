"""AlignmentLoss, and the theory behind it: compensation identity, minimum at the mixture, convexity bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import Tensor

from medmap_monai.losses.alignment import AlignmentLoss, Anchor
from medmap_monai.modalities import BRATS
from medmap_monai.networks.aligned import AlignedNetwork
from medmap_monai.networks.base import ModalityNetwork

M = 4


def features_of(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, M, 3, 2, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(*rows: str) -> Tensor:
    return torch.tensor([[bit == "1" for bit in row] for row in rows])


def mixture(features: Tensor, weights: Tensor) -> Anchor:
    return Anchor(torch.einsum("bm,bm...->b...", weights, features), weights)


def uniform(mask: Tensor) -> Tensor:
    return mask.double() / mask.sum(dim=1, keepdim=True)


def network(theta: list[float]) -> AlignedNetwork:
    """Something that knows how weights are renormalised over a subset."""
    net = AlignedNetwork(ModalityNetwork(3, M, 2, 1, []), levels=[0])
    with torch.no_grad():
        net.mixture.copy_(torch.tensor([theta]))
    return net


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_default_form_is_half_the_mean_squared_distance_per_modality() -> None:
    features, mask = features_of(), masks("1111", "1111")
    anchor = mixture(features, uniform(mask))
    expected = sum(((features[:, m] - anchor.mean) ** 2).mean() for m in range(M)) / (2 * M)
    torch.testing.assert_close(AlignmentLoss()(features, anchor, mask), expected)


def test_it_is_the_divergence_of_unit_variance_normals() -> None:
    """mean KL(N(f, 1) || N(P, 1)), by torch.distributions."""
    features, mask = features_of(), masks("1111", "1111")
    anchor = mixture(features, uniform(mask))
    p = torch.distributions.Normal(features, 1.0)
    q = torch.distributions.Normal(anchor.mean.unsqueeze(1).expand_as(features), 1.0)
    expected = torch.distributions.kl_divergence(p, q).mean()
    torch.testing.assert_close(AlignmentLoss()(features, anchor, mask), expected)


@pytest.mark.parametrize("log_variance", [0.0, 0.7, -1.2])
def test_normal_anchor_with_learned_moments(log_variance: float) -> None:
    features, mask = features_of(), masks("1111", "1111")
    mean, log_var = torch.tensor(0.3).double(), torch.tensor(log_variance).double()
    q = torch.distributions.Normal(mean, torch.exp(0.5 * log_var))
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(features, 1.0), q).mean()
    torch.testing.assert_close(AlignmentLoss()(features, Anchor(mean, None, log_var), mask), expected)


def test_standard_normal_is_half_the_mean_square() -> None:
    features, mask = features_of(), masks("1111", "1111")
    anchor = Anchor(torch.zeros(()), None)
    torch.testing.assert_close(AlignmentLoss()(features, anchor, mask), 0.5 * features.square().mean())


@pytest.mark.parametrize("form", ["mse", "relative", "gaussian_kl"])
@pytest.mark.parametrize("weighted", [False, True])
def test_masks_act_per_sample_and_absent_modalities_do_not_count(form: str, weighted: bool) -> None:
    features, mask = features_of(3), masks("1011", "0110", "0001")
    loss = AlignmentLoss(form, weight_terms_by_anchor=weighted)
    together = loss(features, mixture(features, uniform(mask)), mask)
    alone = []
    for row in range(3):
        kept = features[row : row + 1, mask[row]]
        everything = torch.ones(1, kept.shape[1], dtype=torch.bool)
        alone.append(loss(kept, mixture(kept, uniform(everything)), everything))
    torch.testing.assert_close(together, torch.stack(alone).mean())
    assert alone[2] == pytest.approx(0.0, abs=1e-12)  # a lone modality is its own anchor


@pytest.mark.parametrize("form", ["mse", "relative", "gaussian_kl"])
def test_rows_without_modalities_are_left_out(form: str) -> None:
    features, mask = features_of(2), masks("1110", "0000")
    features = torch.where(mask[:, :, None, None, None, None], features, 0.0).requires_grad_()
    weights = torch.cat([uniform(mask[:1]), torch.zeros(1, M, dtype=torch.float64)])
    value = AlignmentLoss(form)(features, mixture(features, weights), mask)
    first = AlignmentLoss(form)(features[:1], mixture(features[:1], weights[:1]), mask[:1])
    torch.testing.assert_close(value, first)
    value.backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad[1].abs().sum() == 0


def test_gaussian_form_compares_distributions_over_space() -> None:
    """Equal statistics at different places cost nothing; the closed form is torch's."""
    features, mask = features_of(1), masks("1111")
    shuffled = features[:, :1].flatten(3)[..., torch.randperm(8)].reshape(features[:, :1].shape)
    pair = torch.cat([features[:, :1], shuffled], dim=1)
    both = masks("11")
    anchor = mixture(pair, uniform(both))
    assert AlignmentLoss("gaussian_kl")(pair, anchor, both) == pytest.approx(0.0, abs=1e-12)
    assert AlignmentLoss("mse")(pair, anchor, both) > 0.05

    eps = 1e-4
    mean, variance = features.flatten(3).mean(-1), features.flatten(3).var(-1, correction=0) + eps
    weights = uniform(mask).unsqueeze(2)
    mixed_mean = (weights * mean).sum(1, keepdim=True)
    mixed_variance = (weights * (variance + (mean - mixed_mean) ** 2)).sum(1, keepdim=True)
    p = torch.distributions.Normal(mean, variance.sqrt())
    q = torch.distributions.Normal(mixed_mean.expand_as(mean), mixed_variance.sqrt().expand_as(mean))
    expected = torch.distributions.kl_divergence(p, q).mean()
    got = AlignmentLoss("gaussian_kl")(features, mixture(features, uniform(mask)), mask)
    torch.testing.assert_close(got, expected)


def test_relative_form_cannot_be_lowered_by_shrinking() -> None:
    features, mask = features_of(), masks("1111", "0110")
    loss = AlignmentLoss("relative")
    value = loss(features, mixture(features, uniform(mask)), mask)
    torch.testing.assert_close(
        loss(0.1 * features, mixture(0.1 * features, uniform(mask)), mask), value, rtol=2e-2, atol=0
    )
    shrunk = AlignmentLoss("mse")(0.1 * features, mixture(0.1 * features, uniform(mask)), mask)
    assert shrunk < 0.02 * AlignmentLoss("mse")(features, mixture(features, uniform(mask)), mask)
    one = features[:1]
    expected = AlignmentLoss("mse")(one, mixture(one, uniform(mask[:1])), mask[:1])
    expected = expected / (one.flatten(3).var(3, correction=0).mean() + 1e-4)
    torch.testing.assert_close(loss(one, mixture(one, uniform(mask[:1])), mask[:1]), expected)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss(scale * features, mixture(scale * features, uniform(mask)), mask).backward()
    assert scale.grad == pytest.approx(0.0, abs=1e-3)
    normal = Anchor(torch.zeros(()), None)
    torch.testing.assert_close(loss(features, normal, mask), AlignmentLoss()(features, normal, mask))


def test_gaussian_form_with_a_normal_anchor() -> None:
    features, mask = features_of(1), masks("1111")
    mean, variance = features.flatten(3).mean(-1), features.flatten(3).var(-1, correction=0) + 1e-4
    p = torch.distributions.Normal(mean, variance.sqrt())
    expected = torch.distributions.kl_divergence(p, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(AlignmentLoss("gaussian_kl")(features, Anchor(torch.zeros(()), None), mask), expected)


@pytest.mark.parametrize("form", ["mse", "gaussian_kl"])
@pytest.mark.parametrize("weighted", [False, True])
def test_stopping_gradients_into_the_anchor(form: str, weighted: bool) -> None:
    """It changes the gradient only where terms and mixture are weighted differently: the mixture is the minimum."""
    mask, weights = masks("1111"), torch.tensor([[0.4, 0.3, 0.2, 0.1]]).double()
    gradients = []
    for detached in (False, True):
        features = features_of(1).requires_grad_()
        anchor = mixture(features.detach() if detached else features, weights)._replace(detached=detached)
        AlignmentLoss(form, weight_terms_by_anchor=weighted)(features, anchor, mask).backward()
        assert features.grad is not None
        gradients.append(features.grad)
    assert torch.allclose(gradients[0], gradients[1]) == weighted


def test_half_precision_is_computed_in_float32() -> None:
    features, mask = (100 * features_of()).half(), masks("1111", "1111")
    anchor = Anchor(torch.zeros((), dtype=torch.float16), None)
    value = AlignmentLoss()(features, anchor, mask)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), 0.5 * features.double().square().mean(), rtol=1e-3, atol=0)


def test_unknown_form() -> None:
    with pytest.raises(ValueError, match="gaussian_kl"):
        AlignmentLoss("cosine")


# --- the theory, for the distance that the loss uses ------------------------------------------------------------------

WEIGHTS = [[0.0, 0.0, 0.0, 0.0], [1.0, -0.5, 0.3, 2.0], [3.0, 3.0, -3.0, 0.0]]


@pytest.mark.parametrize("theta", WEIGHTS)
@pytest.mark.parametrize("subset", BRATS.subset_masks())
def test_compensation_identity_and_minimum_at_the_mixture(theta: list[float], subset: tuple[bool, ...]) -> None:
    """sum w KL(q_m || P) = JSD_w + KL(q_mix || P): the mixture is the best anchor of every subset."""
    features, mask = features_of(1), torch.tensor([subset])
    weights = network(theta).anchor_weights(mask, 0).double()
    loss = AlignmentLoss(weight_terms_by_anchor=True)
    best = mixture(features, weights)
    gap = loss(features, best, mask)
    for seed in range(3):
        other = torch.randn(best.mean.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        cost = loss(features, Anchor(other, weights), mask)
        extra = 0.5 * (best.mean - other).square().mean()
        torch.testing.assert_close(cost, gap + extra, rtol=1e-6, atol=1e-9)
        assert cost > gap


@pytest.mark.parametrize("subset", BRATS.subset_masks())
def test_convexity_bound_for_every_subset(subset: tuple[bool, ...]) -> None:
    """KL(q_S || P) <= sum w^S KL(q_m || P): what is fused from any subset is as close as its members."""
    features, mask = features_of(1, seed=3), torch.tensor([subset])
    weights = network([0.5, -1.0, 0.0, 1.0]).anchor_weights(mask, 0).double()
    loss = AlignmentLoss(weight_terms_by_anchor=True)
    target = features_of(1, seed=4)[:, 0]
    individual = loss(features, Anchor(target, weights), mask)
    fused = 0.5 * (mixture(features, weights).mean - target).square().mean()
    assert fused <= individual + 1e-9


# --- the theory, for discrete distributions ---------------------------------------------------------------------------

probabilities = st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5).map(lambda v: np.array(v) / np.sum(v))
simplex = st.lists(st.floats(0.01, 1.0), min_size=M, max_size=M).map(lambda v: np.array(v) / np.sum(v))


def jensen_shannon(weights: np.ndarray, members: np.ndarray) -> float:
    """JSD_w by entropies: H(mixture) - mixture of H."""
    return float(entropy(weights @ members) - weights @ entropy(members, axis=1))


@settings(max_examples=60, deadline=None)
@given(st.lists(probabilities, min_size=M, max_size=M).map(np.array), simplex, probabilities)
def test_discrete_compensation_identity(members: np.ndarray, weights: np.ndarray, anchor: np.ndarray) -> None:
    individual = sum(w * entropy(q, anchor) for w, q in zip(weights, members, strict=True))
    assert individual == pytest.approx(jensen_shannon(weights, members) + entropy(weights @ members, anchor), abs=1e-10)
    at_mixture = sum(w * entropy(q, weights @ members) for w, q in zip(weights, members, strict=True))
    assert at_mixture == pytest.approx(jensen_shannon(weights, members), abs=1e-10)
    assert at_mixture <= individual + 1e-10


@settings(max_examples=30, deadline=None)
@given(st.lists(probabilities, min_size=M, max_size=M).map(np.array), simplex, probabilities)
def test_discrete_convexity_bound_for_every_subset(
    members: np.ndarray, weights: np.ndarray, anchor: np.ndarray
) -> None:
    net = network(np.log(weights).tolist())
    for subset in BRATS.subset_masks():
        kept = net.anchor_weights(torch.tensor([subset]), 0)[0].detach().double().numpy()
        kept = kept / kept.sum()
        individual = sum(w * entropy(q, anchor) for w, q in zip(kept, members, strict=True))
        assert entropy(kept @ members, anchor) <= individual + 1e-9


def test_aligning_the_fused_posterior_alone_leaves_the_gap() -> None:
    """The counter-example behind the proposition: a perfect fused posterior with a large modality gap."""
    members = np.array(
        [[0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01], [0.01, 0.01, 0.97, 0.01], [0.01] * 3 + [0.97]]
    )
    weights, anchor = np.full(M, 0.25), np.full(4, 0.25)
    assert entropy(weights @ members, anchor) == pytest.approx(0.0, abs=1e-12)
    assert jensen_shannon(weights, members) > 1.0
