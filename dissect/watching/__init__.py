"""Look at a generator while it is trained: the same latents at every checkpoint, a line each, alarms."""

from .history import Watched

__all__ = ["Watched"]
