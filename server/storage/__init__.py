"""The database: the only package that speaks SQL and knows asyncpg.

Modules for the API take and return records of `server.domain` and raise its errors. Those that
implement the engine's ports (`dispatcher_storage` lists them) use `dispatcher.model` and raise
StorageUnavailable.
"""
