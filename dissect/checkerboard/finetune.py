"""A short training after a repair: the mended generator learns to draw what the original drew, without its grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from ...hooks.errors import UsageError
from ..generators.base import Generator
from ..generators.kept_edits import filtered
from ..subjects.subject import failing
from .closed_form import equalise_part, module_of, notch
from .upsampling import Upsampling

FIRST = 10_000_000  # samples trained on: none that anything is measured on
RATE = 5e-4  # of Adam, falling to nothing in a straight line over the time
GRID = 10.0  # weight of what is left of the grid beside the squared distance from the original


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
    grid notched out of them (see `mend.notch`), plus ten times the energy of the grid left in the student's.
    Normalising layers keep their running statistics. What the repair guarantees is kept: an equalised kernel is
    equalised again after every step, a kernel with a box in it is left alone, a resize-convolution stays one.

    Args:
        student: the mended generator; `teacher`: the one it was made from.
        sites: of the student, where it was mended.
        period: height and width of the grid in pixels.

    Raises:
        UsageError: nothing is left to train.
        DissectError: a network failed.
    """
    pattern = notch(period).to(student.device)
    held = [module_of(student, site) for site in sites] if method != "resize" else []
    student.module.requires_grad_(True)
    if method == "box":
        for part in held:
            part.requires_grad_(False)
    trained = [parameter for parameter in student.module.parameters() if parameter.requires_grad]
    if not trained:
        raise UsageError("--finetune-minutes: all weights lie in the layers with a box, which stay as they are.")
    adam = torch.optim.Adam(trained, lr=RATE, betas=(0.5, 0.99))
    started, steps = time.monotonic(), 0
    while (passed := time.monotonic() - started) < 60 * minutes:
        for group in adam.param_groups:
            group["lr"] = RATE * (1 - passed / (60 * minutes))
        latents = student.latents(range(FIRST + steps * batch, FIRST + (steps + 1) * batch))
        with failing("fine-tuning"):
            with torch.no_grad():
                wanted = filtered(teacher(latents), pattern)
            images = student(latents)
            left = images - filtered(images, pattern)
            loss = (images - wanted).square().mean() + GRID * left.square().mean()
            adam.zero_grad()
            loss.backward()
        adam.step()
        if method == "equalise":
            for site, part in zip(sites, held, strict=True):
                equalise_part(part, site)
        steps += 1
        advance(int(min(60 * minutes, time.monotonic() - started)) - int(passed))
    student.module.requires_grad_(False)
    return steps
