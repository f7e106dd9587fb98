"""What a scan says about itself: how far its ranking was verified, and why it should not be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..storage.shown import interval

TRUSTED = 0.6  # estimates whose rank correlation with exact effects is below this should not be trusted


def verification(info: Mapping[str, Any], width: int) -> str:
    """How many of the units were ablated, how well the estimate agrees with that, and what may be missing."""
    if info["exact"]:
        why = f" ({info['why_exact']})" if info["why_exact"] else ""
        counted = f"Every unit was ablated by itself{why}."
    else:
        counted = f"{info['verified']} of {width} units were ablated by themselves; the others are estimated."
    sentences = [counted]
    if info["agreement"] is not None:
        sentences.append(f"Rank correlation of estimate and exact effect: {_agreement(info)}.")
    if not info["exact"]:
        sentences.append(
            f"The others were ablated in {info['groups']} random groups: as far as effects add up, each of them "
            f"removes at most {info['bound']:.3f} points from these samples (upper 95 % limit "
            f"{info['bound_high']:.3f}); number {info['top']} of the ranking removes {info['weakest']:.3f}."
        )
    return " ".join(sentences)


def caution(info: Mapping[str, Any]) -> str:
    """Why the ranking should not be trusted, and what to do; empty where nothing speaks against it."""
    if info["exact"]:
        return ""
    if info["agreement"] is not None and info["agreement"] < TRUSTED:
        return (
            f"Do not trust the estimate for {info['layer']} and {info['class']}: its rank correlation with the exact "
            f"effects is {_agreement(info)}, below {TRUSTED}. Ablate every unit: --exact."
        )
    if info["bound"] > info["weakest"]:
        return (
            f"Units may be missing among the first {info['top']}: one that was not ablated may remove up to "
            f"{info['bound']:.3f} points of {info['class']}, and number {info['top']} removes "
            f"{info['weakest']:.3f}. To be sure, ablate every unit: --exact."
        )
    return ""


def _agreement(info: Mapping[str, Any]) -> str:
    return interval(*(info[f"agreement{end}"] for end in ("", "_low", "_high")), ".2f", "")
