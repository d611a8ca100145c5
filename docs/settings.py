"""Writes the table of settings, as the code has it, into the README: `python docs/settings.py`."""

import re
from pathlib import Path

from server.config import settings_table

README = Path(__file__).resolve().parent.parent / "README.md"
_TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)


def with_settings(text: str) -> str:
    """Returns the README's text with the present table. Raises ValueError when it has no place for one."""
    written, places = _TABLE.subn(lambda _: f"{settings_table().strip()}\n", text)
    if places != 1:
        raise ValueError("the README needs one <!-- settings --> … <!-- /settings -->")
    return written


if __name__ == "__main__":
    README.write_text(with_settings(README.read_text(encoding="utf-8")), encoding="utf-8")
