"""Checks of what a call asks for. Each raises a `UsageError` of one line: what was given, and what is allowed."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import SupportsIndex

from ...hooks.errors import UsageError
from ...hooks.names import near


def check_integers(limits: Mapping[str, tuple[SupportsIndex | None, int]]) -> None:
    """Check integers against their lower limits.

    Args:
        limits: by option, its value and the least that is allowed; a value of None was left out and passes.

    Raises:
        UsageError: a value is no integer, or is below its limit.

    >>> check_integers({"--samples": (64, 2), "--batch-size": (None, 1)})
    >>> check_integers({"--samples": (1, 2)})
    Traceback (most recent call last):
    ganatomy.hooks.errors.UsageError: samples=1: must be an integer of at least 2.
    """
    for option, (value, least) in limits.items():
        if value is None:
            continue
        try:
            fits = operator.index(value) >= least
        except TypeError:
            fits = False
        if not fits:
            raise UsageError(f"{option} {value}: must be an integer of at least {least}.")


def check_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Check that a value is one of the choices.

    >>> check_choice("--value", "none", ("zero", "mean"))
    Traceback (most recent call last):
    ganatomy.hooks.errors.UsageError: value='none': must be one of zero, mean.
    >>> check_choice("--value", "meen", ("zero", "mean"))
    Traceback (most recent call last):
    ganatomy.hooks.errors.UsageError: value='meen': must be one of zero, mean. Did you mean mean?
    """
    choices = tuple(choices)
    if value not in choices:
        raise UsageError(f"{option} {value!r}: must be one of {', '.join(choices)}. {near(value, choices)}".rstrip())


def check_strength(strength: float) -> None:
    """Check a strength, which lies above 0 and is at most 1."""
    if not 0 < strength <= 1:
        raise UsageError(f"--strength {strength:g}: must be above 0 and at most 1.")
