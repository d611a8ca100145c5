"""Endpoints: their configuration, their senders, probes and name resolution."""
