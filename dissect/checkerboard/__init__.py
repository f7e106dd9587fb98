"""Checkerboards: what an upsampling layer does to a flat input, whether images show it, and how to take it out.

Odena, Dumoulin and Olah 2016, Deconvolution and Checkerboard Artifacts, Distill, explain where they come from;
Sugawara, Shiota and Kiya 2018, Super-Resolution Using Convolutional Neural Networks Without Any Checkerboard Artifacts,
give the condition for there being none.

    from ganatomy.dissect import checkerboard

    checkup = checkerboard.checkup("dcgan_scenes")         # what dissect checkup does
    checkerboard.repair(checkup, method="equalise")        # what dissect repair --checkerboard does
    geometry = checkerboard.Geometry(stride=(2, 2), padding=(1, 1), output_padding=(1, 1))
    checkerboard.overlap((3, 3), geometry)                 # how many taps reach each phase
    checkerboard.phase_sums(conv.weight, geometry)         # equal if and only if a flat input comes out flat
    checkerboard.equalise(conv.weight, geometry)           # the least change that makes them so
"""

from __future__ import annotations

from .check_layers import checkup
from .closed_form import METHODS, mended, notch
from .kernels import (
    Geometry,
    InputMoments,
    box,
    equalise,
    flat_response,
    overlap,
    overlap_line,
    phase_sums,
    project,
    ripple,
    spread,
)
from .repair_grid import repair
from .spectrum import Spectrum, broadband, peaks
from .upsampling import Upsampling, upsamplings

__all__ = [
    "METHODS",
    "Geometry",
    "InputMoments",
    "Spectrum",
    "Upsampling",
    "box",
    "broadband",
    "checkup",
    "equalise",
    "flat_response",
    "mended",
    "notch",
    "overlap",
    "overlap_line",
    "peaks",
    "phase_sums",
    "project",
    "repair",
    "ripple",
    "spread",
    "upsamplings",
]
