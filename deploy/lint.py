"""Checks Compose files against the models of the Compose specification; unknown keys are errors."""

import sys
from pathlib import Path
from typing import Any

import yaml
from compose_spec import ComposeSpecification


def specified(document: dict[str, Any]) -> dict[str, Any]:
    """Return a file without its extensions, which the specification leaves to the file and the models do not know."""
    return {key: value for key, value in document.items() if not key.startswith("x-")}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        document = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        ComposeSpecification.model_validate(specified(document), extra="forbid")
