"""Writes the table of settings, as the code has it, into docs/configuration.md: `python docs/settings.py`."""

import re
from pathlib import Path

from server.config import settings_table

PAGE = Path(__file__).resolve().parent / "configuration.md"
_TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)


def with_settings(text: str) -> str:
    """Return the page's text with the present table. Raise ValueError when it has no place for one."""
    table = settings_table().strip().replace("](docs/", "](")
    written, places = _TABLE.subn(lambda _: f"{table}\n", text)
    if places != 1:
        raise ValueError("the page needs one <!-- settings --> … <!-- /settings -->")
    return written


if __name__ == "__main__":
    PAGE.write_text(with_settings(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
