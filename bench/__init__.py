"""Benchmarks: the real service process, real HTTP, default durability, and the ledger compared.

`python -m bench NAME` runs one. Nothing of the service is switched off or tuned for them.
"""
