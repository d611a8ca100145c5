"""The dispatcher: turns rows of the ledger into HTTP deliveries.

It knows Postgres only through `ports.Ledger`, HTTP only through `ports.Sender`, and
neither gRPC nor the server at all.
"""
