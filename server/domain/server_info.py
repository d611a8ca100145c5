"""What the service says about itself to operators: its release, its database and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class SettingInForce(NamedTuple):
    """A setting by its variable, its value without secrets, and whether somebody set it."""

    name: str
    value: str
    is_set: bool


@dataclass(frozen=True, slots=True)
class Release:
    """The version of the service, and the settings that it was started with."""

    version: str = "0"
    settings: Sequence[SettingInForce] = ()


class DatabaseVersions(NamedTuple):
    """The version of the schema, and of the database server, such as `15.8`."""

    schema: int
    server: str
