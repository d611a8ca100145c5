"""Run the command line as `python -m mailing.cli`."""

import sys

from mailing.cli import main

sys.exit(main())
