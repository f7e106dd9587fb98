"""The terms that pages explain where they stand, in the words of the glossary of the documentation."""

TERMS = {
    "IoU": "Intersection over union of a unit's region and a class: 1 if both are the same pixels, 0 if they have none "
    "in common.",
    "region": "Where a unit's activation exceeds its threshold.",
    "threshold": "The level above which a unit counts as active.",
    "position IoU": "The IoU to expect if the label maps were dealt out among the images at random: what the position "
    "in the image alone gives.",
    "content IoU": "IoU minus position IoU: what a unit knows beyond the layout of the images.",
    "chance IoU": "The IoU of an independent mask of the same size.",
    "attainable IoU": "The largest IoU that a region of the unit's size could reach with the class.",
    "IQ ratio": "Information quality ratio, mutual information over joint entropy of region and class. Not the "
    "interquartile range.",
    "q-value": "Benjamini–Hochberg: the share of false labels to expect among all that are as significant as this one.",
    "p-value": "How often exchanged images overlap as much as the right ones, under the hypothesis that the unit knows "
    "only positions.",
    "tier": "How much a unit knows of its class beyond position: strong, weak, position only, untested, or none.",
    "label": "The class that a unit matches best. A unit is labelled if the match passes the limits of the rule and "
    "the test.",
    "label set": "The classes that come first in a noticeable part of the bootstraps: a unit with several of them has "
    "no single label.",
    "split-half IoU": "The IoU with the halves of the samples exchanged: class and threshold from the odd samples, "
    "score from the even ones.",
    "effect": "What ablating a unit by itself adds to a class, in percentage points of the image; below 0 the class "
    "leaves. With ≈ it is a first-order estimate: what the gradient says, not a measurement.",
    "interval": "95 %, over images unless stated otherwise.",
}
