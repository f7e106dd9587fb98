"""The terms that pages explain, beside the glossary of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from ganatomy.reports.terms import TERMS

GLOSSARY = Path(__file__).parents[2] / "docs/reference/glossary.md"


def test_pages_explain_terms_in_the_words_of_the_glossary() -> None:
    entries = re.findall(r"^(\S.*)\n {2}(\S.*)$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    definitions = {term: text.replace("*", "") for term, text in entries}
    assert {term: definitions.get(term) for term in TERMS} == TERMS
