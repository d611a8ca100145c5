"""Writes the synchronous client from the asyncio one: `python clients/python/synchronous.py [FOLDER]`.

`client`, `client_import` and `watch` are written once, in `mailing/aio`; each becomes the module of the same
name in FOLDER, by default `mailing`. Only the two `transport` modules are written by hand.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from unasync import Rule, unasync_files

PACKAGE = Path(__file__).parent / "mailing"
MODULES = ("client", "client_import", "watch")
WORDS = {"aclose": "close", "aclosing": "closing", "anext": "next"}
"""What has another name, besides what unasync knows."""


def main(folder: Path) -> None:
    """Write the modules into the folder, formatted."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [str(PACKAGE / "aio" / f"{name}.py") for name in MODULES]
    unasync_files(sources, [Rule(str(PACKAGE / "aio"), str(folder), WORDS)])
    written = [folder / f"{name}.py" for name in MODULES]
    for path in written:
        first = f"# Generated from mailing/aio/{path.name} by `make generate`: change that one.\n\n"
        path.write_text(first + path.read_text().replace("mailing.aio.", "mailing."))
    configuration = PACKAGE.parents[2] / "pyproject.toml"
    for command in (["check", "--fix", "--select", "I"], ["format"]):
        arguments = [*command, "--quiet", "--config", str(configuration), *map(str, written)]
        subprocess.run(["ruff", *arguments], check=True)  # noqa: S603, S607 - the environment's own


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)
