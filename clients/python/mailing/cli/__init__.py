"""The command line `mailing`: everything a caller does, through the public gRPC API.

Tables for people, `--json` for programs, one sentence on stderr when something fails, and
documented exit codes (see `mailing.cli.failures`).
"""

from mailing.cli.app import main

__all__ = ["main"]
