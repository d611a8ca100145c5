"""What the service is about, without gRPC and without SQL: records, rules and errors.

Validation collects every violation of a request before it rejects it, each with the path of
the field and a sentence. Nothing here does I/O.
"""
