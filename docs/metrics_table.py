"""Writes the table of metrics, as the code has it, into docs/metrics.md: `python docs/metrics_table.py`."""

import re
from pathlib import Path

from server.observability.metrics import FAMILIES

PAGE = Path(__file__).resolve().parent / "metrics.md"
_TABLE = re.compile(r"(?<=<!-- metrics -->\n).*?(?=<!-- /metrics -->)", re.DOTALL)


def table() -> str:
    """Return all metrics of the service's own as a Markdown table."""
    rows = ["| Metric | Kind | Labels | Meaning |", "|---|---|---|---|"]
    for family in FAMILIES.values():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{family.name}` | {family.kind} | {labels} | {family.help} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """Return the page's text with the present table. Raise ValueError when it has no place for one."""
    written, places = _TABLE.subn(lambda _: table(), text)
    if places != 1:
        raise ValueError("docs/metrics.md needs one <!-- metrics --> … <!-- /metrics -->")
    return written


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
