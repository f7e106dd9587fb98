"""Which of several generators to take: quality and diversity side by side, as E-GAN's two axes (Wang et al. 2018)."""

from .compare import fitness
from .critic import critic_fitness
from .result import Fitness

__all__ = ["Fitness", "critic_fitness", "fitness"]
