"""A short training after a repair: the repaired generator learns to draw what the original drew, without its grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from ...hooks.errors import UsageError
from ..generators.base import Generator
from ..generators.kept_edits import filtered
from ..subjects.subject import failing
from .closed_form import equalise_module, module_of, notch
from .upsampling import Upsampling

FIRST = 10_000_000  # samples trained on: none that anything is measured on
RATE = 5e-4  # of Adam; it falls linearly to zero over the time
GRID = 10.0  # weight of the grid's remaining energy in the loss, beside the squared distance from the original


def finetune(
    student: Generator,
    teacher: Generator,
    sites: Sequence[Upsampling],
    *,
    method: str,
    period: tuple[int, int],
    minutes: float,
    batch: int,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Train the student in place for so many minutes of the clock; returns the number of steps.

    Distillation on the same latents: the mean squared distance between the student's images and the teacher's with the
    grid notched out of them (see `closed_form.notch`), plus ten times the energy of the grid left in the student's.
    Normalising layers keep their running statistics. What the repair guarantees is kept: an equalised kernel is
    equalised again after every step, a kernel with a box in it is left alone, a resize-convolution stays one.

    Args:
        student: the repaired generator; teacher: the one before the repair.
        sites: where the student was repaired.
        method: of the repair.
        period: height and width of the grid in pixels.
        batch: latents a step.
        advance: is called with the number of seconds passed.

    Raises:
        UsageError: nothing is left to train.
        DissectError: a network failed.
    """
    pattern = notch(period).to(student.device)
    modules = [module_of(student, site) for site in sites] if method != "resize" else []  # that must be kept repaired
    student.module.requires_grad_(True)
    if method == "box":
        for module in modules:
            module.requires_grad_(False)
    trained = [parameter for parameter in student.module.parameters() if parameter.requires_grad]
    if not trained:
        raise UsageError("--finetune-minutes: all weights lie in the layers with a box, which stay as they are.")
    adam = torch.optim.Adam(trained, lr=RATE, betas=(0.5, 0.99))
    started, steps = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < 60 * minutes:
        for group in adam.param_groups:
            group["lr"] = RATE * (1 - elapsed / (60 * minutes))
        latents = student.latents(range(FIRST + steps * batch, FIRST + (steps + 1) * batch))
        with failing("fine-tuning"):
            with torch.no_grad():
                target = filtered(teacher(latents), pattern)
            images = student(latents)
            grid = images - filtered(images, pattern)
            loss = (images - target).square().mean() + GRID * grid.square().mean()
            adam.zero_grad()
            loss.backward()
        adam.step()
        if method == "equalise":
            for site, module in zip(sites, modules, strict=True):
                equalise_module(module, site)
        steps += 1
        advance(int(min(60 * minutes, time.monotonic() - started)) - int(elapsed))
    student.module.requires_grad_(False)
    return steps
