"""The operators' pages are complete: every error reason has a cure, every setting and every file exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dispatcher.model.states import Reason
from mailing.v1.error_pb2 import ErrorReason
from server.api.error_table import ANSWERS
from server.config.settings import Settings, is_secret, variables_of
from server.config.sources import FILE_VARIABLE
from server.observability.metrics import FAMILIES
from tests.support.documents import DOCUMENTS, page, section
from tests.support.project import ROOT

REASONS = section(page("troubleshooting"), "## Error reasons")
SECTIONS = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=\n### |\Z)", REASONS, re.MULTILINE | re.DOTALL))


def test_every_error_reason_has_its_status_cause_and_cure() -> None:
    """Fails for a reason that is added to the protos alone."""
    assert sorted(SECTIONS) == sorted(
        name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number
    )
    assert [name for name, text in SECTIONS.items() if "**Cause:** " not in text or "**Cure:**" not in text] == []


def test_the_status_of_a_reason_is_the_one_that_is_sent() -> None:
    for answer in ANSWERS.values():
        if answer.reason:
            assert (
                answer.code.name
                in SECTIONS[ErrorReason.Name(answer.reason).removeprefix("ERROR_REASON_")].split("**")[0]
            )


def known_variables() -> set[str]:
    known = {variable for name in Settings.model_fields for variable in variables_of(name)}
    known |= {f"{variables_of(name)[0]}_FILE" for name in Settings.model_fields if is_secret(name)}
    callers = {"MAILING_ADDRESS", "MAILING_TOKEN", "MAILING_CA_FILE", "MAILING_CERT_FILE", "MAILING_KEY_FILE"}
    return known | callers | {FILE_VARIABLE, "MAILING_TLS"} | SECTIONS.keys() | {reason.name for reason in Reason}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_settings_that_a_page_names_exist(path: Path) -> None:
    named = re.findall(r"\bMAILING_[A-Z_]+[A-Z]\b(?!…)", path.read_text(encoding="utf-8"))
    assert sorted({*named} - known_variables()) == []


FOLDERS = r"(server|dispatcher|clients|protos|tests|deploy|examples|bench)(/|$)"


def files_named(text: str) -> set[str]:
    named = re.findall(r"`([\w./-]+)`|(?<=[ /])((?:tests|bench)/[\w./-]+)", text)
    return {one or other for one, other in named if re.match(FOLDERS, one or other)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_page_names_exists(path: Path) -> None:
    """Fails when a file moves and the page that leads to it does not follow."""
    if path.name != "CHANGELOG.md":
        files = files_named(path.read_text(encoding="utf-8"))
        assert sorted(one for one in files if not (ROOT / one).exists()) == []


def test_a_message_passes_through_nine_files_at_most() -> None:
    """Fails when the architecture page leads from claim to recorded row through more, or through none."""
    told = page("architecture").partition("Files to open")[2].partition("\n\n")[0]
    assert 6 <= len(files_named(told)) <= 9


def test_a_request_passes_through_seven_files_at_most() -> None:
    """Counts what the architecture page names for CreateMailing behind the interceptors."""
    steps = section(page("architecture"), "## One request: CreateMailing").partition("2. ")[2]
    assert 4 <= len(files_named(steps)) <= 7


def test_the_architecture_names_every_room() -> None:
    rooms = {f"server/{path.name}" for path in (ROOT / "server").iterdir() if (path / "__init__.py").exists()}
    assert sorted(room for room in rooms if f"| `{room}` |" not in page("architecture")) == []


def test_the_glossary_s_names_are_in_use() -> None:
    """Fails for a name that the contract, the schema, the settings and the metrics gave up."""
    table = section(page("glossary"), "## Names on the wire, in the schema and of metrics")
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    names = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    patterns = ("protos/mailing/v1/*.proto", "server/**/migrations/*.sql", "bench/*.py")
    sources = [path for pattern in patterns for path in ROOT.glob(pattern)]
    text = "\n".join(f"{path.stem}\n{path.read_text(encoding='utf-8')}" for path in sources)
    text += " ".join([*known_variables(), *(f"{one.name} {' '.join(one.labels)}" for one in FAMILIES.values())])
    assert len(names) > 20
    assert [name for name in names if name not in text] == []
