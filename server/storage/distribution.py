"""Lays the tables out over a cluster of Citus, and says what is not as it should be.

Safe to repeat: what is done already is left as it is. Buckets are spread so that
no node has many more than another. Nothing here is called on a single server.

The statements name what only Citus has, so they are not among those of `sql/`, which every server can
prepare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from server.storage.layout import DELEGATED, FIRST, NUMBERED, TABLES, Place
from server.storage.migrate import LOCK

MAX_SKEW = 1.0
"""Seconds that the clocks of two nodes may differ: by so much a window or an end may be missed."""

_EXTENSION = "SELECT extversion FROM pg_extension WHERE extname = 'citus'"
_GROUP = "SELECT groupid FROM pg_dist_local_group"
_NODES = """
SELECT nodename, nodeport, groupid, isactive, shouldhaveshards FROM pg_dist_node
WHERE noderole = 'primary' ORDER BY nodename, nodeport
"""
_OWN_TABLES = """
SELECT c.relname AS name FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND relation_is_a_known_shard(c.oid) IS NOT TRUE
  AND NOT EXISTS (
    SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  )
"""
_LAID_OUT = """
SELECT c.relname AS name, p.partmethod::text AS method, p.colocationid AS colocation,
  column_to_column_name(p.logicalrelid, p.partkey) AS key
FROM pg_dist_partition p JOIN pg_class c ON c.oid = p.logicalrelid
WHERE c.relnamespace = current_schema()::regnamespace AND NOT c.relispartition
"""
_FUNCTIONS = """
SELECT p.oid::regprocedure::text AS signature, p.proname AS name, p.proconfig IS NOT NULL AS has_settings,
  d.objid IS NOT NULL AS everywhere, d.distribution_argument_index IS NOT NULL AS delegated
FROM pg_proc p
LEFT JOIN pg_catalog.pg_dist_object d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
WHERE p.pronamespace = current_schema()::regnamespace
  AND NOT EXISTS (
    SELECT 1 FROM pg_depend x WHERE x.classid = 'pg_proc'::regclass AND x.objid = p.oid AND x.deptype = 'e'
  )
ORDER BY p.oid
"""
_PLACED = """
SELECT s.shardid, s.nodename, s.nodeport
FROM (
  SELECT bucket, get_shard_id_for_distribution_column('buckets', bucket) AS shardid
  FROM generate_series(0, $1 - 1) AS bucket
) b
JOIN citus_shards s ON s.shardid = b.shardid AND s.table_name = 'buckets'::regclass
"""
_EACH_NODE = "SELECT result FROM run_command_on_all_nodes($1) ORDER BY nodeid"
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())"

_SETTINGS = {
    # One connection from a session to each node: bucket by bucket nothing is gained by more.
    "citus.max_adaptive_executor_pool_size": "1",
    # Otherwise every look at the catalogue asks of each table whether it is a shard: 2 s for a new connection.
    "citus.override_table_visibility": "off",
}
"""What the sessions of this database are set to."""

_NO_CITUS = (
    "The database has no Citus extension, so it is one server: CREATE EXTENSION citus on the coordinator and on every "
    "worker first, or leave --distribute out."
)
_NO_COORDINATOR = "This server is a worker of the cluster: point MAILING_DSN at the coordinator."
_UNNAMED = (
    "The workers do not know the coordinator: run SELECT citus_set_coordinator_host('HOST') on it, with the name by "
    "which they reach it."
)
_NO_WORKER = "The cluster has no node for tables: run SELECT citus_add_node('HOST', 5432) for each worker."

Node = tuple[str, int]
"""Host and port."""


class ClusterError(Exception):
    """The cluster cannot be used as it is; the message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Lying:
    """How a table lies on the cluster: Citus's method, the column it goes by, and the group it lies with."""

    method: str
    key: str | None
    group: int


async def is_distributed(connection: asyncpg.Connection) -> bool:
    """Return whether the tables of this database are laid out over a cluster."""
    if await connection.fetchval(_EXTENSION) is None:
        return False
    return FIRST in await _laid_out(connection)


async def distribute(connection: asyncpg.Connection) -> list[str]:
    """Lay out every table and function that is not yet, and return the names of the tables.

    Raise ClusterError, before anything is changed, for a server without Citus or that is no coordinator,
    for nodes that are not ready, and for a table that this release does not know or that lies elsewhere.
    """
    await _require_coordinator(connection)
    tables = {row["name"] for row in await connection.fetch(_OWN_TABLES)}
    if unknown := sorted(tables - TABLES.keys()):
        raise ClusterError(
            f"The table {unknown[0]} is not one of this release, so its place on the cluster is not known: move it to "
            "another schema, or install the release that made it."
        )
    if wrong := [*misplaced(await _laid_out(connection)), *await _unfit_nodes(connection)]:
        raise ClusterError(f"{wrong[0]}.")
    async with _sequentially(connection):
        fresh = await _missing_tables(connection)
        first = [name for name in fresh if TABLES[name] is Place.EVERYWHERE or name == FIRST]
        for table in first:
            await _lay_out(connection, table)
    if _followed(fresh):
        await _spread_buckets(connection)
    async with _sequentially(connection):
        for table in (rest := await _missing_tables(connection)):
            await _lay_out(connection, table)
        await _lay_out_functions(connection)
        await _tune(connection)
    return [*first, *rest]


async def follow_migration(connection: asyncpg.Connection) -> list[str]:
    """Lay out what a migration added to tables that are laid out; return the names of new ones. Raise ClusterError."""
    if not await is_distributed(connection):
        return []
    if not await _missing_tables(connection) and not await _missing_functions(connection):
        return []
    return await distribute(connection)


async def problems(connection: asyncpg.Connection) -> list[str]:
    """Return what is not as it should be on a cluster that was laid out, a sentence without its full stop each."""
    missing = await _missing_tables(connection)
    functions = await _missing_functions(connection)
    return [
        *(f"The table {name} is not laid out over the cluster: mailing-server migrate does it" for name in missing),
        *misplaced(await _laid_out(connection)),
        *(f"The function {name} does not run on every node: mailing-server migrate sees to it" for name in functions),
        *await _unfit_nodes(connection),
    ]


def misplaced(found: Mapping[str, Lying]) -> list[str]:
    """Return a sentence without its full stop for every table that lies elsewhere than it should."""
    home = found[FIRST].group if FIRST in found else 0
    return [
        f"The table {name} lies elsewhere on the cluster than it should: SELECT undistribute_table('{name}') brings it "
        "back, and --distribute lays it out"
        for name, lying in sorted(found.items())
        if name in TABLES and not _is_right(TABLES[name], lying, home)
    ]


def _is_right(place: Place, lying: Lying, home: int) -> bool:
    match place:
        case Place.BUCKET:
            return (lying.method, lying.key, lying.group) == ("h", "bucket", home)
        case Place.PHONE:
            return (lying.method, lying.key) == ("h", "phone")
        case Place.EVERYWHERE:
            return lying.method == "n" and lying.key is None
        case Place.COORDINATOR:
            return False


def moves(placed: Iterable[tuple[int, Node]], nodes: Iterable[Node]) -> list[tuple[int, Node, Node]]:
    """Return which shards to move, from where and to where, so that all nodes have about as many buckets.

    `placed` has the shard of every bucket and the node of that shard.
    """
    where = dict(placed := list(placed))
    weights = Counter(shard for shard, _ in placed)
    load = Counter(dict.fromkeys(nodes, 0))
    for shard, node in where.items():
        load[node] += weights[shard]
    found: list[tuple[int, Node, Node]] = []
    while True:
        most, least = max(load, key=load.__getitem__), min(load, key=load.__getitem__)
        gap = load[most] - load[least]
        fitting = [shard for shard, node in sorted(where.items()) if node == most and weights[shard] < gap]
        if not fitting:
            return found
        # The one that leaves the two nodes closest to each other.
        shard = min(fitting, key=lambda one: abs(gap - 2 * weights[one]))
        where[shard] = least
        load[most] -= weights[shard]
        load[least] += weights[shard]
        found.append((shard, most, least))


_ORDER = (Place.EVERYWHERE, Place.BUCKET, Place.PHONE)
_IN_ORDER = sorted(
    (name for name, place in TABLES.items() if place in _ORDER),
    key=lambda name: (_ORDER.index(TABLES[name]), name != FIRST, name),
)
"""The tables to lay out: those on every node first, then the one that the others follow."""


def _followed(fresh: Collection[str]) -> bool:
    """Return whether no table lies with the buckets yet, so that these still move at no cost."""
    return all(name in fresh for name, place in TABLES.items() if place is Place.BUCKET and name != FIRST)


@asynccontextmanager
async def _sequentially(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Run a transaction, one at a time, that changes one node after the other, as functions beside tables ask for."""
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        await connection.execute("SET LOCAL citus.multi_shard_modify_mode = 'sequential'")
        yield


async def _require_coordinator(connection: asyncpg.Connection) -> None:
    if await connection.fetchval(_EXTENSION) is None:
        raise ClusterError(_NO_CITUS)
    if await connection.fetchval(_GROUP) != 0:
        raise ClusterError(_NO_COORDINATOR)
    nodes = await connection.fetch(_NODES)
    if not any(row["groupid"] == 0 for row in nodes):
        raise ClusterError(_UNNAMED)
    if not any(row["shouldhaveshards"] for row in nodes):
        raise ClusterError(_NO_WORKER)


async def _unfit_nodes(connection: asyncpg.Connection) -> list[str]:
    """Return a sentence without its full stop for what is wrong with nodes: disabled, unable to commit, clocks."""
    rows = await connection.fetch(_NODES)
    if disabled := [f"The node {row['nodename']}:{row['nodeport']} is disabled" for row in rows if not row["isactive"]]:
        return disabled
    wrong = []
    prepared = await connection.fetch(_EACH_NODE, "SHOW max_prepared_transactions")
    if any(row["result"] == "0" for row in prepared):
        wrong.append(
            "A node has max_prepared_transactions = 0, so it cannot commit together with others: set it to twice its "
            "max_connections"
        )
    # All are asked at once, so the answers differ by as much as the clocks, and by the way there.
    clocks = [float(row["result"]) for row in await connection.fetch(_EACH_NODE, _CLOCK)]
    if (skew := max(clocks) - min(clocks)) > MAX_SKEW:
        wrong.append(
            f"The clocks of the nodes differ by {skew:.1f} s, and windows and ends by as much: let NTP set them"
        )
    return wrong


async def _laid_out(connection: asyncpg.Connection) -> dict[str, Lying]:
    rows = await connection.fetch(_LAID_OUT)
    return {row["name"]: Lying(row["method"], row["key"], row["colocation"]) for row in rows}


async def _missing_tables(connection: asyncpg.Connection) -> list[str]:
    found = await _laid_out(connection)
    return [name for name in _IN_ORDER if name not in found]


async def _missing_functions(connection: asyncpg.Connection) -> list[str]:
    return [
        row["name"]
        for row in await connection.fetch(_FUNCTIONS)
        if not row["everywhere"]
        or row["delegated"] != (row["name"] in DELEGATED)
        or (row["delegated"] and row["has_settings"])
    ]


async def _lay_out(connection: asyncpg.Connection, table: str) -> None:
    place = TABLES[table]
    if table in NUMBERED:
        await connection.execute(f"ALTER TABLE {table} ALTER no SET DEFAULT nextval('{NUMBERED[table]}')")
    if place is Place.EVERYWHERE:
        await connection.execute("SELECT create_reference_table($1::text::regclass)", table)
    elif table == FIRST:
        await _lay_out_buckets(connection)
    else:
        home = FIRST if place is Place.BUCKET else "none"
        await connection.execute(
            "SELECT create_distributed_table($1::text::regclass, $2, colocate_with => $3)", table, place.value, home
        )
    # What was copied to the nodes is on the coordinator as well, where nobody reads it.
    await connection.execute("SELECT truncate_local_data_after_distributing_table($1::text::regclass)", table)


async def _lay_out_buckets(connection: asyncpg.Connection) -> None:
    """Make as many shards as there are buckets."""
    buckets = await connection.fetchval("SELECT count(*) FROM buckets")
    await connection.execute(
        "SELECT create_distributed_table($1::text::regclass, 'bucket', colocate_with => 'none', shard_count => $2)",
        FIRST,
        buckets,
    )


async def _spread_buckets(connection: asyncpg.Connection) -> None:
    """Give each node as many buckets: shards are spread evenly, but one may have none of them and another three."""
    buckets = await connection.fetchval("SELECT count(*) FROM buckets")
    nodes = [(row["nodename"], row["nodeport"]) for row in await connection.fetch(_NODES) if row["shouldhaveshards"]]
    rows = await connection.fetch(_PLACED, buckets)
    placed = [(row["shardid"], (row["nodename"], row["nodeport"])) for row in rows]
    for shard, source, target in moves(placed, nodes):
        await connection.execute(
            "SELECT citus_move_shard_placement($1, $2, $3, $4, $5, shard_transfer_mode => 'block_writes')",
            shard,
            *source,
            *target,
        )


async def _lay_out_functions(connection: asyncpg.Connection) -> None:
    for row in await connection.fetch(_FUNCTIONS):
        delegated = row["name"] in DELEGATED
        if delegated and row["has_settings"]:
            # The node's plans depend on which shard has the bucket: a generic one cannot be made.
            await connection.execute(f"ALTER FUNCTION {row['signature']} RESET ALL")
        if delegated and not row["delegated"]:
            await connection.execute(
                "SELECT create_distributed_function($1::text::regprocedure, 'p_bucket', colocate_with => $2)",
                row["signature"],
                FIRST,
            )
        elif not row["everywhere"]:
            await connection.execute("SELECT create_distributed_function($1::text::regprocedure)", row["signature"])


async def _tune(connection: asyncpg.Connection) -> None:
    """Set the database's sessions; those that are open go on as they began."""
    name = await connection.fetchval("SELECT quote_ident(current_database())")
    for setting, value in _SETTINGS.items():
        await connection.execute(f"ALTER DATABASE {name} SET {setting} = {value}")
