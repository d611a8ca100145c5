"""The console's texts: every one is in every language, with the same things filled in, and nothing is left over."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po

from server.console import catalogues, render
from server.console.viewer import LANGUAGES

CONSOLE = Path(catalogues.__file__).parent
METHODS = [("**.py", "python"), ("**/templates/**.html", "jinja2")]
OPTIONS = {"**/templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true"}}
KEYWORDS = {**DEFAULT_KEYWORDS, "N_": None, "text": None}
TRANSLATED = [language for language in LANGUAGES if language != "en"]


def used() -> set[str]:
    found = extract_from_dir(str(CONSOLE), METHODS, OPTIONS, KEYWORDS)
    return {text if isinstance(text, str) else text[0] for _, _, text, _, _ in found}


def catalogue(language: str) -> dict[str, list[str]]:
    with (CONSOLE / "locale" / language / "LC_MESSAGES" / "console.po").open("rb") as source:
        known = read_po(source, locale=language)
    found = {}
    for one in known:
        forms = (one.string,) if isinstance(one.string, str) else one.string
        found[one.id if isinstance(one.id, str) else one.id[0]] = [str(form) for form in forms or ()]
    return {text: forms for text, forms in found.items() if text}


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_text_is_translated_and_none_is_left_over(language: str) -> None:
    known = catalogue(language)
    assert len(known) > 300
    assert sorted(used() - known.keys()) == []
    assert sorted(known.keys() - used()) == []
    assert [text for text, forms in known.items() if not all(forms)] == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_translations_fill_in_the_same_things(language: str) -> None:
    names = re.compile(r"%\(\w+\)s|%%|\{[^}]+\}")
    wrong = [
        text
        for text, forms in catalogue(language).items()
        if any(sorted(names.findall(form)) != sorted(names.findall(text)) for form in forms)
    ]
    assert wrong == []


def test_a_language_counts_as_its_people_do() -> None:
    russian = catalogues.translations_of("ru")
    told = [russian.ngettext("%(n)s attempt", "%(n)s attempts", n) for n in (1, 3, 5, 21)]
    assert told == ["%(n)s попытка", "%(n)s попытки", "%(n)s попыток", "%(n)s попытка"]


def test_scripts_that_are_not_ours_are_those_that_were_looked_at() -> None:
    """Fails when a vendored file changes without its line in SHA256SUMS."""
    folder = CONSOLE / "static" / "vendor"
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    told = {name: digest for digest, name in map(str.split, lines)}
    files = [path for path in folder.iterdir() if path.name != "SHA256SUMS"]
    assert {path.name: sha256(path.read_bytes()).hexdigest() for path in files} == told


def test_what_is_loaded_is_shipped() -> None:
    assert [name for name in render.FILES if not (render.STATIC / name).is_file()] == []
    ours = (render.STATIC / "console.js").read_text(encoding="utf-8")
    assert len(ours.splitlines()) < 300
    assert not re.search(r"\beval\b|innerHTML|document\.write", ours)
