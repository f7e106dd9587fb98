"""Controls: what a layer of a network that has learnt nothing would give.

rotation    the same network, its units mixed by a random orthogonal matrix: is it the units that mean something, or
            any direction of the layer? (Bau et al. 2017, section 3.2)
untrained   the same architecture with weights drawn anew, on its own images
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from .generators.base import Generator
from .randomness import WEIGHTS, dice

ROTATION, UNTRAINED = CONTROLS = ("rotation", "untrained")
STATISTICS, BATCH = 256, 16  # samples from which running statistics are taken anew, and how many at once


def untrained(generator: Generator, seed: int = 0) -> Generator:
    """The generator with every parameter drawn anew: independent normal numbers with that tensor's mean and variance.

    So the scale of weights and biases stays what the architecture is used to, whatever its own initialisation.
    Running statistics, of batch norm for example, are taken anew from 256 samples. The given generator is not changed.
    """
    module = copy.deepcopy(generator.module)
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            numbers = dice(seed, WEIGHTS, number).standard_normal(tuple(parameter.shape), np.float32)
            spread = parameter.std(correction=0) if parameter.numel() else 0
            parameter.copy_(parameter.mean() + spread * torch.from_numpy(numbers).to(parameter))
    fresh = replace(generator, module=module, name=f"{generator.name} untrained")
    if any(True for _ in module.buffers()):
        _renew_statistics(fresh)
    return fresh


@torch.no_grad()
def _renew_statistics(generator: Generator) -> None:
    norms = [layer for layer in generator.module.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    generator.module.train()
    for start in range(0, STATISTICS, BATCH):
        generator.module(generator.latents(range(start, start + BATCH)))
    generator.module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
