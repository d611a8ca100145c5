"""The service: gRPC in front, Postgres behind, the dispatcher inside."""
