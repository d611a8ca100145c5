"""The command line `mailing`: everything one does with the service, by its public API.

Tables for people, `--json` for programs, one sentence on stderr when something fails and an
exit status that says what kind of failure it was (see `mailing.cli.failures`).
"""

from mailing.cli.app import main

__all__ = ["main"]
