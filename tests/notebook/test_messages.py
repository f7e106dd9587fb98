"""Errors name options to those who typed a command, and arguments to those who wrote Python; provenance likewise."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ganatomy import dissect
from ganatomy.cli import main
from ganatomy.dissect import Dissection, Effects
from ganatomy.dissect.runtime.calls import command
from ganatomy.hooks.errors import DissectError, UsageError
from ganatomy.hooks.names import in_callers_words, typed

from ..conftest import Do, Go


def test_python_hears_of_arguments_and_a_command_of_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^threshold='foo': must be one of iqr, quantile"):
        dissect.run("progan_scenes", 7, threshold="foo", out=tmp_path / "run")
    with pytest.raises(UsageError, match=r"^batch_size=0: must be an integer of at least 1"):
        dissect.run("progan_scenes", 7, batch_size=0, out=tmp_path / "run")
    outcome = CliRunner().invoke(
        main, ["power", str(tmp_path), "--width", "2"], standalone_mode=False, catch_exceptions=True
    )
    assert outcome.exit_code != 0
    run = ["run", "--model", "progan_scenes", "--layer", "7", "--out", str(tmp_path / "run"), "--samples", "1"]
    assert "--samples 1: must be" in CliRunner().invoke(main, run).stderr
    with pytest.raises(UsageError, match=r"^samples=1: must be"):
        dissect.run("progan_scenes", 7, samples=1, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Give a value or a --level, not both.", "Give a value or a `level`, not both."),
        ("--class tree does not", "`label` tree does not"),
        ("--seed -1: must be", "seed=-1: must be"),
        ("no such layer; name one by --layer 'main.9'.", "no such layer; name one by layer='main.9'."),
        ("(dissect run --shard 1/2), or --out FOLDER", "(dissect run --shard 1/2), or out=FOLDER"),
        ("a -- b --- c a--b", "a -- b --- c a--b"),
    ],
)
def test_options_become_arguments(message: str, words: str) -> None:
    assert in_callers_words(message) == words
    assert str(DissectError(message)) == words
    with typed():
        assert str(DissectError(message)) == message


def test_a_result_names_the_call_in_python(found: Dissection, do: Do, go: Go) -> None:
    effects = do("ablate")(label="red", top=1, random_sets=0)
    said = effects.info["command"]
    assert said.startswith("dissect.ablate(")
    assert "label='red'" in said
    assert "top=1" in said
    assert "random_sets=0" in said
    assert str(found.folder)[:20] in said
    assert "by=" not in said  # a default
    assert found.info["command"].startswith("dissect.run(<Generator>, ")
    assert "samples=120" in found.info["command"]


def test_a_command_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/dissect", "run", "--layer", "7"])
    with typed():
        assert command() == "dissect run --layer 7"


def test_an_effect_without_a_run_has_no_folder(planted: object, tmp_path: Path) -> None:
    from ..conftest import Soft

    effects = dissect.ablate(
        planted,
        units=[3],
        layer="paint",
        segmenter=Soft(),
        samples=16,
        random_sets=0,
        quiet=True,  # type: ignore[arg-type]
    )
    assert isinstance(effects, Effects)
    assert effects.folder is None
    assert repr(effects).endswith("not kept in a folder")
