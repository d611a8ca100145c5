"""What several test packages share: factories, a scripted endpoint, the audit of the ledger."""
