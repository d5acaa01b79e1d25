"""Load studies with absent files, hide modalities, prepare, and bring predictions back."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
