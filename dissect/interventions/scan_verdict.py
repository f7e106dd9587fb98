"""What a scan says about itself: how far its ranking was verified, and why it should not be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..storage.shown import interval

TRUSTED = 0.6  # estimates whose rank correlation with exact effects is below this should not be trusted
FEW = 0.25  # of the first units: if fewer than so many are certain, a unit may be missing that matters


def verification(info: Mapping[str, Any], width: int) -> str:
    """How many of the units were ablated, how well the estimate agrees with that, and what may be missing."""
    if info["exact"]:
        why = f" ({info['why_exact']})" if info["why_exact"] else ""
        counted = f"Every {noun(info)} was ablated by itself{why}."
    else:
        counted = f"{info['verified']} of {width} {noun(info)}s were ablated by themselves; the others are estimated."
    sentences = [counted]
    if info["agreement"] is not None:
        sentences.append(f"Rank correlation of estimate and exact effect: {_agreement(info)}.")
    if not info["exact"]:
        sentences.append(
            f"The others were ablated in {info['groups']} random groups: as far as effects add up, each of them "
            f"removes at most {info['bound']:.3f} points from these samples (upper 95 % limit "
            f"{info['bound_high']:.3f}). {_certain(info)}"
        )
    return " ".join(sentences)


def noun(info: Mapping[str, Any]) -> str:
    """What was ablated: unit or direction. Scans of earlier versions do not say; theirs were units."""
    return str(info.get("noun", "unit"))


def caution(info: Mapping[str, Any]) -> str:
    """Why the ranking should not be trusted, and what to do; empty where nothing speaks against it."""
    if info["exact"]:
        return ""
    if info["agreement"] is not None and info["agreement"] < TRUSTED:
        return (
            f"Do not trust the estimate for {info['layer']} and {info['class']}: its rank correlation with the exact "
            f"effects is {_agreement(info)}, below {TRUSTED}. Ablate every {noun(info)}: --exact."
        )
    if info["certain"] < FEW * info["top"]:
        return (
            f"Strong {noun(info)}s may be missing: groups of {noun(info)}s of {info['layer']} that were not ablated "
            f"alone remove up to {info['bound']:.3f} points of {info['class']} more than first order tells. Ablate "
            f"every {noun(info)}: --exact."
        )
    return ""


def _certain(info: Mapping[str, Any]) -> str:
    """Which of the first units are certain to be the first ones."""
    certain, top = info["certain"], info["top"]
    if certain == top:
        return f"That is less than each of the first {top} removes: none of them is missing."
    if not certain:
        return f"None of the first {top} removes more, so that strong {noun(info)}s may be missing (--exact finds all)."
    return (
        f"Of the first {top}, {certain} remove more than that; beyond these, {noun(info)}s may be missing (--exact "
        "finds all)."
    )


def _agreement(info: Mapping[str, Any]) -> str:
    return interval(info["agreement"], info["agreement_low"], info["agreement_high"], ".2f", "")
