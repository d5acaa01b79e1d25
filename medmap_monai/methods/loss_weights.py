"""Weights of the losses of a method, by the names of the losses; 0 leaves a loss out and its work undone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PassionWeights:
    """Weights of :class:`~medmap_monai.methods.passion.Passion`, as published.

    Args:
        deep: deep-supervision maps of the fused prediction.
        pixel: students against the teacher's probabilities.
        prototype: students against the teacher's similarity maps.
        unimodal: the label against one modality alone.
    """

    deep: float = 1.0
    pixel: float = 0.5
    prototype: float = 0.1
    unimodal: float = 1.0


@dataclass(frozen=True)
class DMAFWeights:
    """Weights of :class:`~medmap_monai.methods.dmaf.DMAF`; where they come from: docs/explanation/dmafnet.md.

    Args:
        deep: deep-supervision maps of the fused prediction.
        modality: the label against one modality alone.
        covariance: channel relations of a modality's features against the fused ones.
        attention: attention of a modality's features against that of the fused ones.
        prototype: class prototypes of a modality's features against those of the fused ones.
        pixel: predictions of one modality against the fused one.
    """

    deep: float = 1.0
    modality: float = 1.0
    covariance: float = 0.1
    attention: float = 0.1
    prototype: float = 0.01
    pixel: float = 0.0

    @property
    def distillation(self) -> dict[str, float]:
        """The weights of the terms that compare features, those of 0 left out."""
        terms = {"covariance": self.covariance, "attention": self.attention, "prototype": self.prototype}
        return {name: weight for name, weight in terms.items() if weight}
