"""The texts of the console: English in the source, one catalogue per other language under `locale/`.

A further language is a file there and a line in `viewer.LANGUAGES`. Catalogues are read as they are
edited, so nothing has to be compiled.
"""

from __future__ import annotations

import gettext
import io
from functools import cache
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

FOLDER = Path(__file__).with_name("locale")


@cache
def translations_of(language: str) -> gettext.NullTranslations:
    """Return the texts in a language; those that have no translation stay English."""
    path = FOLDER / language / "LC_MESSAGES" / "console.po"
    if not path.is_file():
        return gettext.NullTranslations()
    compiled = io.BytesIO()
    with path.open("rb") as source:
        write_mo(compiled, read_po(source, locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
