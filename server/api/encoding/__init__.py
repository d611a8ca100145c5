"""Protobuf to the domain's records and back; the rules are the domain's."""
