"""Where every table stands on a cluster of Citus: by bucket, by phone, on every node, or on the coordinator.

A table that is missing here is refused when a cluster is set up: which place is right for it is a decision.
"""

from __future__ import annotations

from enum import Enum


class Place(Enum):
    """Where the rows of a table are."""

    BUCKET = "bucket"
    """On the node of their bucket, whose number every key contains."""
    PHONE = "phone"
    """On a node of their own: the phone is the only key that is unique across buckets."""
    EVERYWHERE = "everywhere"
    """All of them on every node, for tables that are small, seldom written, and read beside those of buckets."""
    COORDINATOR = "coordinator"
    """On the coordinator alone, for what no node with buckets reads."""


FIRST = "buckets"
"""The table that decides which node has which bucket; the others follow it."""

TABLES = {
    FIRST: Place.BUCKET,
    "attempts": Place.BUCKET,
    "batches": Place.BUCKET,
    "blocks": Place.BUCKET,
    "calendars": Place.EVERYWHERE,
    "client_change_seqs": Place.BUCKET,
    "client_changes": Place.BUCKET,
    "client_phones": Place.PHONE,
    "client_sends": Place.BUCKET,
    "clients": Place.BUCKET,
    "daily_reports": Place.COORDINATOR,
    "day_quotas": Place.EVERYWHERE,
    "dispatch_settings": Place.EVERYWHERE,
    "endpoints": Place.COORDINATOR,
    "expansions": Place.BUCKET,
    "held_receipts": Place.BUCKET,
    "journal": Place.BUCKET,
    "journal_epochs": Place.COORDINATOR,
    "journal_floors": Place.BUCKET,
    "log": Place.BUCKET,
    "log_floors": Place.BUCKET,
    "log_seqs": Place.BUCKET,
    "mailing_counts": Place.BUCKET,
    "mailing_figures": Place.BUCKET,
    "mailing_samples": Place.BUCKET,
    "mailings": Place.EVERYWHERE,
    "messages": Place.BUCKET,
    "phone_keys": Place.COORDINATOR,
    "phone_memories": Place.COORDINATOR,
    "rate_slots": Place.COORDINATOR,
    "receipt_counts": Place.BUCKET,
    "receipts": Place.BUCKET,
    "removals": Place.COORDINATOR,
    "replicas": Place.COORDINATOR,
    "requests": Place.BUCKET,
    "schedules": Place.COORDINATOR,
    "schema_migrations": Place.COORDINATOR,
    "segments": Place.COORDINATOR,
    "webhooks": Place.COORDINATOR,
}

DELEGATED = (
    "admit_v1",
    "claim_v1",
    "departures_v1",
    "expand_changes_v1",
    "expand_changes_v2",
    "expand_v1",
    "expand_v2",
    "requeue_blocks_v1",
    "requeue_v1",
    "settle_v1",
)
"""Functions that are called with a bucket, `p_bucket`, and run on the node that has it."""

NUMBERED = {"batches": "batch_no", "blocks": "batch_no"}
"""Tables whose `no` those functions take from a sequence: as its default, every node gets a part of the numbers."""
