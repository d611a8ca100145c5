"""Segments that change while mailings name them and clients change, against the model of filters.

After each step an open mailing has everybody who matches at that moment or has matched before. A fixed one that has
begun keeps the filter of its start, however late it takes clients in. Seen to fail: when a changed segment does not
begin another pass over the clients, and when it rewrites the audience of a fixed mailing that has begun.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.model.states import AudienceMode
from server.domain.filters import ClientFilter
from server.domain.mailings import MailingDefinition
from server.domain.segments import SegmentDefinition
from server.storage.clients import ClientStore
from server.storage.database import Database, DispatcherDatabase
from server.storage.dispatcher_storage import dispatcher_storage
from server.storage.mailings import MailingStore
from server.storage.segments import SegmentStore
from tests.integration.filters import model
from tests.integration.filters.model import EVERYBODY, INSTALLATION, Person, matches
from tests.integration.filters.strategies import names, some, trees, values, with_database

segments = st.builds(ClientFilter, tags=some(st.sampled_from(model.TAGS), 2)) | trees
changed_segments = segments.map(lambda chosen: ("segment", chosen))
changed_clients = st.tuples(
    st.just("client"),
    st.sampled_from(range(len(EVERYBODY))),
    st.sampled_from(model.TAGS),
    st.dictionaries(names, values, max_size=3),
)
steps = st.lists(st.one_of(changed_segments, changed_clients), min_size=1, max_size=6)


async def recipients(pool: asyncpg.Pool, mailing_id: int) -> set[int]:
    """Return who has a message once the dispatcher's plan has done what there is to do."""
    plan = dispatcher_storage(DispatcherDatabase(pool), uuid4()).plan
    while expansions := [one for one in await plan.expandable(10_000) if one.mailing_id == mailing_id]:
        for bucket in expansions[0].positions:
            await plan.expand(expansions[0], bucket, 500, 1000)
    await plan.expanded(0.0)
    await pool.execute("UPDATE mailings SET recheck_at = now() WHERE id = $1 AND recheck_at < 'infinity'", mailing_id)
    for expansion in await plan.rechecks_due():
        for bucket in expansion.positions if expansion.mailing_id == mailing_id else ():
            await plan.expand_changes(expansion, bucket, 500, 1000)
    rows = await pool.fetch("SELECT client_id FROM ledger WHERE mailing_id = $1", mailing_id)
    return {row["client_id"] for row in rows}


async def apply(pool: asyncpg.Pool, segment_id: int, people: list[Person], step: Any) -> ClientFilter | None:
    """Do a step; return the filter of the segment if it is another one."""
    if step[0] == "segment":
        store = SegmentStore(Database(pool), INSTALLATION, lambda: None)
        await store.update(segment_id, "", SegmentDefinition("", step[1]), {"filter"})
        chosen: ClientFilter = step[1]
        return chosen
    _, index, tag, attributes = step
    clients = ClientStore(Database(pool), INSTALLATION)
    patch = replace((await clients.get(people[index].id)).definition, tag=tag, attributes=attributes)
    changed = (await clients.update(people[index].id, "", patch, {"tag", "attributes"})).definition
    # The code of the operator is derived from the phone where it was left out.
    people[index] = replace(people[index], tag=tag, attributes=attributes, operator_code=changed.operator_code)
    return None


@settings(with_database, max_examples=20)
@given(first=segments, steps=steps)
async def test_mailings_follow_their_segment_as_the_model_does(
    pool: asyncpg.Pool, first: ClientFilter, steps: list[Any]
) -> None:
    people, name = list(EVERYBODY), f"s{uuid4().hex}"
    segment = await SegmentStore(Database(pool), INSTALLATION, lambda: None).create(
        SegmentDefinition(name, first), None
    )
    mailings = MailingStore(Database(pool), INSTALLATION, lambda: None)
    definition = MailingDefinition(text="Hi", filter=ClientFilter(segment=name))
    opened = (await mailings.create(definition, None)).id
    fixed = (await mailings.create(replace(definition, audience_mode=AudienceMode.SNAPSHOT), None)).id
    chosen = first
    wanted = set[int]()
    try:
        for step in [None, *steps]:
            chosen = (step and await apply(pool, segment.id, people, step)) or chosen
            wanted |= {who.id for who in people if matches(chosen, who)}
            assert await recipients(pool, opened) == wanted
        assert await recipients(pool, fixed) == {who.id for who in people if matches(first, who)}
    finally:
        await restore(pool)


async def restore(pool: asyncpg.Pool) -> None:
    """Let the clients be those of the model again, and no mailing of this example be under way."""
    await pool.executemany(
        "UPDATE clients SET tag = $2, attributes = $3, operator_code = $4 WHERE id = $1",
        [(who.id, who.tag, orjson.dumps(dict(who.attributes)).decode(), who.operator_code) for who in EVERYBODY],
    )
    await pool.execute("UPDATE mailings SET state = 4 WHERE id > 100")
