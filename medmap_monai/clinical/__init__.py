"""From the scanner and back: recognised, registered, skull-stripped; results on the grids that came in."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
