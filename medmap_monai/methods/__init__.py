"""Training methods: a network, the heads that only training needs, and the losses."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
