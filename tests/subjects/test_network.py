"""Which layers are suggested, and what `auto` and `all` mean, beside the rule applied by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from ganatomy.dissect import Dissection, inspect
from ganatomy.dissect.generators.loading import load_generator
from ganatomy.dissect.subjects.network import first_choice, layer_table, requested_layers, suggested
from ganatomy.dissect.subjects.opening import shapes_of
from ganatomy.hooks.errors import UsageError

from ..conftest import Go


def table(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(
        [(number, name, units, side, side, "featuremap") for number, (name, units, side) in enumerate(rows, 1)],
        columns=["number", "layer", "units", "height", "width", "kind"],
    )


def test_the_first_the_middle_and_the_last_layer_that_fit() -> None:
    rows = table(("a", 9, 4), ("b", 9, 8), ("c", 9, 16), ("d", 9, 16), ("e", 9, 32), ("f", 9, 64), ("g", 3, 16))
    assert suggested(rows, 128) == ["b", "d", "e"]  # b to e fit; two lie in the middle, and Python rounds 1.5 to 2
    assert first_choice(suggested(rows, 128)) == "d"
    assert suggested(rows, 64) == ["b", "c", "d"]


def test_where_none_fits_the_nearest_is_suggested() -> None:
    assert suggested(table(("a", 9, 2), ("b", 9, 6), ("c", 9, 14)), 16) == ["b"]
    assert suggested(table(("rgb", 3, 16)), 64) == []


def test_auto_takes_what_inspect_names_first() -> None:
    generator = load_generator("progan_scenes")
    names = list(layer_table(generator, shapes_of(generator)).layer)
    assert requested_layers(generator, "auto") == (inspect("progan_scenes").first_choice,) == ("layer5",)
    assert requested_layers(generator, "all") == tuple(names)
    assert requested_layers(generator, [5, "layer7"]) == ("layer5", "layer7")
    with pytest.raises(UsageError, match=r"layer.*\ball\b.*only"):
        requested_layers(generator, ["all", "layer5"])
    with pytest.raises(UsageError, match=r"\bauto\b.*\ball\b"):
        requested_layers(generator, [])


def test_a_run_records_the_whole_network(go: Go) -> None:
    run: Dissection = go(samples=20)
    rows = {row["layer"]: row for row in run.info["network"]}
    for layer, known in run.info["layers"].items():
        assert rows[layer]["units"] == known["units"]
        assert rows[layer]["kind"] == "featuremap"
