"""The settings of the service: from options, the environment and a file, here and nowhere else.

`load_settings` checks all of them together before anything is opened; `ConfigError` has one
sentence per bad one. Secrets are never shown, neither in errors nor in a repr.
"""

from server.config.display import masked, rows_in_force, settings_table
from server.config.settings import DEFAULT_ADMIN_LISTEN, ConfigError, Settings, split_address
from server.config.sources import Loaded, environment_of, load, load_settings

__all__ = [
    "DEFAULT_ADMIN_LISTEN",
    "ConfigError",
    "Loaded",
    "Settings",
    "environment_of",
    "load",
    "load_settings",
    "masked",
    "rows_in_force",
    "settings_table",
    "split_address",
]
