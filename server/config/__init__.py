"""The settings of the service: from options, the environment and a file, here and nowhere else.

`load_settings` checks all of them together before any port is bound; `ConfigError` has one
sentence per invalid one. Secrets are never shown, neither in errors nor in a repr.
"""

from server.config.display import masked, rows_in_force, settings_table
from server.config.settings import DEFAULT_ADMIN_LISTEN, ConfigError, Settings
from server.config.sources import Loaded, endpoint_token_in, environment_of, load, load_settings
from server.config.types import split_address

__all__ = [
    "DEFAULT_ADMIN_LISTEN",
    "ConfigError",
    "Loaded",
    "Settings",
    "endpoint_token_in",
    "environment_of",
    "load",
    "load_settings",
    "masked",
    "rows_in_force",
    "settings_table",
    "split_address",
]
