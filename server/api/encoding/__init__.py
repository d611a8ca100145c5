"""Protobuf to the domain's records and back. Nothing here decides anything."""
