"""Which of several generators to choose: quality and diversity of each, the two axes of E-GAN (Wang et al. 2018)."""

from .compare import fitness
from .critic import critic_fitness
from .result import Fitness

__all__ = ["Fitness", "critic_fitness", "fitness"]
