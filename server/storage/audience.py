"""A mailing's filter as statements take it and as it is stored."""

from __future__ import annotations

from typing import Any

import orjson

from dispatcher.model.mailings import AudienceFilter


def filter_arguments(audience: AudienceFilter) -> dict[str, Any]:
    """Return the filter as five parameters of a statement; NULL asks nothing."""
    return {
        "tags": audience.tags,
        "operator_codes": audience.operator_codes,
        "timezones": audience.timezones,
        "attributes": None if audience.attributes is None else orjson.dumps(audience.attributes).decode(),
        "chosen_ids": audience.client_ids,
    }


def read_filter(text: str) -> AudienceFilter:
    """Return the filter of a stored JSON object."""
    stored = {field: value for field, value in orjson.loads(text).items() if value}
    return AudienceFilter(**stored)
