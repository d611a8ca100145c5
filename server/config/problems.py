"""Sentences about invalid settings: one for each, with its source and the remedy.

A sentence never contains a secret, nor a value that may contain one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches

from pydantic import ValidationError

from server.config.settings import PREFIX, Settings, expectation_of, is_secret, variables_of

_OF_CLIENTS = frozenset(
    {"MAILING_ADDRESS", "MAILING_TOKEN", "MAILING_TLS", "MAILING_CA_FILE", "MAILING_CERT_FILE", "MAILING_KEY_FILE"}
)
"""Variables of the command line as a caller of the service; the service itself ignores them."""

_ORCHESTRATOR = re.compile(r"MAILING_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
"""Variables that Kubernetes sets in every pod for a service called mailing."""


def unknown_variables(environment: Collection[str], known_beside: Collection[str]) -> list[str]:
    """Return a sentence for each variable with the service's prefix that is not a setting."""
    known = {variable for name in Settings.model_fields for variable in variables_of(name)} | {*known_beside}
    foreign = {variable for variable in environment if _ORCHESTRATOR.fullmatch(variable)} | _OF_CLIENTS
    problems = []
    for variable in sorted({*environment} - known - foreign):
        if variable.startswith(PREFIX):
            similar = get_close_matches(variable.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], 1)
            advice = (
                f"did you mean {PREFIX}{similar[0]}?" if similar else "`mailing-server config` lists those there are."
            )
            problems.append(f"{variable} is not a setting of this service: {advice}")
    return problems


def unknown_name(subject: str, name: str) -> str:
    """Return a sentence for a name that is not a setting; `subject` says where it was found."""
    similar = get_close_matches(name, Settings.model_fields, 1)
    advice = f"did you mean {similar[0]}?" if similar else "`mailing-server config` lists those there are."
    return f"{subject} is not a setting of this service: {advice}"


def sentences(error: ValidationError, places: Mapping[str, str]) -> list[str]:
    """Return one sentence per invalid setting, naming the source of its value."""
    found = {}
    for problem in error.errors(include_url=False, include_context=False):
        if not problem["loc"]:
            found[problem["msg"]] = problem["msg"]
            continue
        name, value = str(problem["loc"][0]), problem["input"]
        place = places.get(name, variables_of(name)[0])
        hidden = is_secret(name) or isinstance(value, dict | list) or bool({"@", "?"} & set(str(value)))
        instead = "" if hidden else f", not {str(value)[:200]!r}"
        found[name] = f"{place[0].upper()}{place[1:]} should be {expectation_of(name)}{instead}."
    return list(found.values())
