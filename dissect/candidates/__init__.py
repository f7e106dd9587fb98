"""Which of several generators to take: quality and diversity side by side, as E-GAN's two axes (Wang et al. 2018)."""

from .findings import Fitness

__all__ = ["Fitness"]
