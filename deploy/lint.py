"""Checks compose.yaml against the models of the Compose specification; unknown keys are errors."""

import sys
from pathlib import Path

import yaml
from compose_spec import ComposeSpecification

if __name__ == "__main__":
    for name in sys.argv[1:]:
        ComposeSpecification.model_validate(yaml.safe_load(Path(name).read_text(encoding="utf-8")), extra="forbid")
