"""A generator that has learnt nothing: every parameter drawn anew, statistics taken anew."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ...hooks.errors import DissectError, one_line
from ..generators.base import Generator
from ..generators.families.architecture import BatchStatistics
from ..generators.families.style_based import StyleBased
from ..runtime.random_streams import WEIGHTS, dice

STATISTICS, BATCH = 256, 16  # samples from which running statistics are taken anew, and how many at once


def untrained(generator: Generator, seed: int = 0, samples: int = STATISTICS) -> Generator:
    """The generator with every parameter drawn anew: independent normal numbers with that tensor's mean and variance.

    So the scale of weights and biases stays what the architecture is used to, whatever its own initialisation.
    Running statistics, of batch norm for example, are taken anew from the first samples, 256 at most. The given
    generator is not changed.

    Raises:
        DissectError: the network fails when it is trained.
    """
    module = copy.deepcopy(generator.module)
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            numbers = dice(seed, WEIGHTS, index).standard_normal(tuple(parameter.shape), np.float32)
            spread = parameter.std(correction=0) if parameter.numel() else 0
            parameter.copy_(parameter.mean() + spread * torch.from_numpy(numbers).to(parameter))
    if isinstance(module, StyleBased):
        module.renew_mean()
    fresh = replace(generator, module=module, name=f"{generator.name} untrained")
    if next(module.buffers(), None) is not None:
        _renew_statistics(fresh, min(samples, STATISTICS))
    return fresh


@torch.no_grad()
def _renew_statistics(generator: Generator, samples: int) -> None:
    norms = [layer for layer in generator.module.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
    momenta = [norm.momentum for norm in norms]
    for module in generator.module.modules():
        if isinstance(module, BatchStatistics):
            module.seen = 0
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    generator.module.train()
    try:
        for start in range(0, samples, BATCH):
            generator.module(generator.latents(range(start, min(start + BATCH, samples))))
    except Exception as error:  # whatever the user's network raises
        raise DissectError(f"{generator.name}: running statistics could not be renewed ({one_line(error)}).") from error
    generator.module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
