"""Webhooks out: subscribers of the configuration are notified of events, in order and at least once."""

from server.webhooks.worker import Webhooks

__all__ = ["Webhooks"]
