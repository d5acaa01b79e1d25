"""Ignite engines: training, segmenting studies, evaluating every subset."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
