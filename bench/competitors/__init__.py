"""The same job done by others: POST every message to the endpoint and record each outcome durably.

Each module runs in an environment of its own that has the competitor's package:
`python -m bench.competitors.NAME DSN URL MESSAGES FIRST_ID SETTING`. It prepares its queue
in an empty database, works it off, checks that every outcome is recorded, and prints one
JSON object with the seconds from the first look for work to the last record. Filling the
queue is not counted.
"""
