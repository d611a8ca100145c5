"""A mailing's filter as statements take it and as it is stored."""

from __future__ import annotations

from typing import Any

import orjson

from dispatcher.model.records import AudienceFilter


def filter_arguments(audience: AudienceFilter) -> tuple[Any, ...]:
    """Return the filter as five parameters of a statement; NULL asks nothing."""
    attributes = None if audience.attributes is None else orjson.dumps(audience.attributes).decode()
    return audience.tags, audience.operator_codes, audience.timezones, attributes, audience.client_ids


def read_filter(text: str) -> AudienceFilter:
    """Return the filter of a stored JSON object."""
    stored = {field: value for field, value in orjson.loads(text).items() if value}
    return AudienceFilter(**stored)
