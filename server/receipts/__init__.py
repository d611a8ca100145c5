"""What gateways send: a listener of its own for receipts, apart from the API and off until it is configured."""

from server.receipts.serving import CannotOpenReceipts, serving_receipts

__all__ = ["CannotOpenReceipts", "serving_receipts"]
