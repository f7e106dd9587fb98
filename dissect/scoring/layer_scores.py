"""From featuremaps to labelled units: counts -> labels -> tests -> table. Runs and watched trainings share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from ...segmenters.base import Vocabulary
from ..capture.maps import Maps
from ..runtime import distributed
from .counting import Tally, tally_layer
from .label_tests import THOROUGHNESS, Evidence, Thoroughness, examine_layer
from .levels import level_shares
from .scores import Labels, label_units
from .unit_table import judge, unit_table


@dataclass(frozen=True, kw_only=True)
class LayerScores:
    """What is known of the units of a layer; `evidence` is None until, or unless, their labels are tested."""

    maps: Maps
    tally: Tally
    labels: Labels
    evidence: Evidence | None = None


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How units are labelled and tested."""

    vocabulary: Vocabulary
    rule: str  # iqr or quantile
    quantile: float
    thoroughness: Thoroughness | None  # None: labels are not tested
    seed: int

    @classmethod
    def of(cls, config: Mapping[str, Any], vocabulary: Vocabulary) -> Scoring:
        """As the config of a run says."""
        return cls(
            vocabulary=vocabulary,
            rule=config["threshold"],
            quantile=config["quantile"],
            thoroughness=THOROUGHNESS.get(config["significance"]),
            seed=config["seed"] or 0,
        )

    @property
    def shares(self) -> list[float]:
        """The shares of pixels above each level."""
        return level_shares(self.quantile)

    @property
    def _quantile_level(self) -> int:
        return self.shares.index(self.quantile)

    def label(self, maps: Maps, advance: Callable[[int], None]) -> LayerScores:
        """Count a layer and label its units; `advance(n)` is called after every n finished units."""
        tally = tally_layer(maps, len(self.vocabulary), self.shares, advance)
        choose = partial(label_units, tally.choose, tally.score, self.rule, self._quantile_level)
        return LayerScores(maps=maps, tally=tally, labels=distributed.on_first(choose))

    def test(self, layer: LayerScores, advance: Callable[[int], None]) -> LayerScores:
        """The same layer with its labels tested, if they are to be."""
        if self.thoroughness is None:
            return layer
        evidence = examine_layer(
            layer.maps, layer.tally, layer.labels, self.rule, self.thoroughness, self.seed, advance
        )
        return replace(layer, evidence=evidence)

    def table(self, layers: Sequence[LayerScores]) -> pd.DataFrame:
        """The rows of units.csv, judged over all layers together."""
        tables = [
            unit_table(
                layer.maps.layer,
                layer.tally,
                layer.labels,
                layer.evidence,
                self.vocabulary,
                self.rule,
                self._quantile_level,
            )
            for layer in layers
        ]
        tested = self.thoroughness is not None
        return judge(pd.concat(tables, ignore_index=True), tested, self.rule)
