"""The ledger as the API sees it: records in, records out, SQL in between.

Besides the dispatcher's own ledger this is the only place that knows asyncpg; callers see
records and refusals of `server.domain`.
"""
