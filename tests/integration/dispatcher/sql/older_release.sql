-- Statements of the last release that wrote a row for each client at expansion, which may still run beside this one
-- while an upgrade rolls.

-- name: claim
-- Leases open batches. The incremented fence makes writes of earlier holders fail. A mailing that
-- was changed or stopped since its definition was read yields none. A batch that still names a
-- holder was not given back: what that one sent is unknown, so the batch is marked (`doubtful`)
-- until it is settled. The batches $held are left alone: their outcomes wait at this
-- replica to be recorded.
WITH picked AS (
  SELECT no, holder FROM batches
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND due_at <= now() AND lease_until <= now()
    AND no <> ALL($held::bigint[])
    AND EXISTS (
      SELECT FROM mailings
      WHERE id = $mailing_id AND version = $version AND state = $state
        AND (state IN ({MailingState.RUNNING}, {MailingState.CANCELLED}) OR ends_at <= now())
    )
    AND NOT EXISTS (SELECT FROM dispatch_settings WHERE paused)
  ORDER BY no LIMIT $most
  FOR UPDATE SKIP LOCKED
)
UPDATE batches b
SET fence = b.fence + 1, lease_until = now() + $lease::interval, leased_at = now(), holder = $replica_id,
  doubtful = b.doubtful OR p.holder IS NOT NULL
FROM picked p
WHERE b.bucket = $bucket AND b.mailing_id = $mailing_id AND b.no = p.no
RETURNING b.no, b.fence, b.client_ids, b.doubtful AS reclaimed, now() AS claimed_at,
  (SELECT seq FROM client_change_seqs WHERE bucket = $bucket) AS change_no;

-- fragment: due_at
-- When the message is due, now or later. What was due at once, and a retry further ahead than it can
-- be, are due: the clock was set back since. A window is asked about apart.
CASE WHEN m.due_at > m.created_at AND m.due_at <= now() + $max_backoff::interval + interval '5 s'
    THEN greatest(m.due_at, now()) ELSE now() END

-- fragment: recipient
-- Whether the message may be sent now. `skip_reason` is why the client is not to get it, or NONE.
-- `opens_at` is set for a message to be sent later: when the client's window opens, or when its
-- next attempt is due (a batch due after the mailing's end is claimed earlier). `closes_in` is NULL
-- without a window. `overdue` bounds the attempts that do not count. The filter's parameters are NULL for everybody.
m.client_id, m.attempts, coalesce(m.forgiven, 0) AS uncounted, m.maybe_sent IS TRUE AS maybe_sent, c.phone,
  CASE WHEN c.opted_out THEN {Reason.OPTED_OUT}
    WHEN ($tags::text[] IS NULL OR c.tag = ANY($tags))
      AND ($operator_codes::text[] IS NULL OR c.operator_code = ANY($operator_codes))
      AND ($timezones::text[] IS NULL OR c.timezone = ANY($timezones))
      AND ($attributes::jsonb IS NULL OR c.attributes @> $attributes)
      AND ($chosen_ids::bigint[] IS NULL OR m.client_id = ANY($chosen_ids)) THEN {Reason.NONE}
    ELSE {Reason.NO_LONGER_MATCHES} END AS skip_reason,
  CASE WHEN c.window_start IS NOT NULL THEN
      nullif(window_opens_at(c.timezone, c.window_start, c.window_length, {due_at}), now())
    ELSE nullif({due_at}, now()) END AS opens_at,
  CASE WHEN c.window_start IS NOT NULL THEN
    extract(epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now())::float8
  END AS closes_in,
  m.created_at < now() - interval '1 day' AS overdue

-- fragment: pending
-- The pending messages of a batch. $first_id and $last_id keep the index range tight whatever the
-- planner estimates for the array; the LIMIT makes it look up clients one by one, by their key.
FROM messages m
LEFT JOIN LATERAL (SELECT * FROM clients WHERE bucket = $bucket AND id = m.client_id LIMIT 1) c ON true
WHERE m.bucket = $bucket AND m.mailing_id = $mailing_id AND m.client_id = ANY($client_ids::bigint[])
  AND m.client_id BETWEEN $first_id AND $last_id AND m.status = {Status.PENDING}
ORDER BY m.client_id

-- name: fetch
-- The recipients of a claimed batch of a mailing with one text for all.
SELECT {recipient}
{pending};

-- fragment: logged
-- The events, in parallel arrays, written last. Without any, nothing is read or locked.
numbered AS (
  UPDATE log_seqs SET seq = seq + cardinality($event_levels::smallint[])
  WHERE cardinality($event_levels::smallint[]) > 0 AND bucket = $bucket AND EXISTS (SELECT FROM tick)
  RETURNING seq
), logged AS (
  INSERT INTO log (bucket, no, level, event, text, mailing_id, message_id, client_id, details)
  SELECT $bucket, n.seq - cardinality($event_levels::smallint[]) + e.ordinality, e.level, e.event, e.text, $mailing_id,
    CASE WHEN e.client_id > 0 THEN $mailing_id::bigint << 32 | e.client_id ELSE 0 END, e.client_id, e.details::jsonb
  FROM numbered n
  CROSS JOIN unnest(
    $event_levels::smallint[], $event_names::text[], $event_texts::text[], $event_client_ids::bigint[],
    $event_details::text[]
  ) WITH ORDINALITY AS e(level, event, text, client_id, details, ordinality)
)

-- name: settle
-- Records outcomes of a leased batch, in one statement and only under the fence it was claimed
-- with. The arrays are parallel to $client_ids, which ascend; an array of one entry holds for all.
-- entry_of reads them: the plan of a join would depend on statistics that a new mailing does not
-- have. With $done the batch is removed or, with the clients in $kept, which were not begun, given
-- back. Other messages that stay pending go into new batches ($requeued_ids at $requeued_times).
WITH held AS (
  SELECT no, doubtful FROM batches
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND no = $batch_no AND fence = $fence
  FOR UPDATE
), closed AS (
  DELETE FROM batches b USING held
  WHERE $done AND cardinality($kept::bigint[]) = 0
    AND b.bucket = $bucket AND b.mailing_id = $mailing_id AND b.no = held.no
), released AS (
  -- The fence is incremented, so that the same call, repeated because its answer was lost, finds nothing.
  -- It stays marked: what an earlier holder sent is no better known for that.
  UPDATE batches b SET client_ids = $kept, fence = b.fence + 1, lease_until = '-infinity', holder = NULL
  FROM held
  WHERE $done AND cardinality($kept::bigint[]) > 0
    AND b.bucket = $bucket AND b.mailing_id = $mailing_id AND b.no = held.no
), tick AS (
  -- Locks the bucket's row before its messages and counters: all statements lock in this order.
  UPDATE buckets SET journal_seq = journal_seq + 1
  WHERE bucket = $bucket AND EXISTS (SELECT FROM held)
  RETURNING journal_seq
), settled AS (
  UPDATE messages m SET
    status = entry_of($statuses::smallint[], m.client_id, $client_ids::bigint[]),
    reason = entry_of($reasons::smallint[], m.client_id, $client_ids::bigint[]),
    attempts = m.attempts + entry_of($attempted::smallint[], m.client_id, $client_ids::bigint[]),
    forgiven = coalesce(m.forgiven + entry_of($uncounted::smallint[], m.client_id, $client_ids::bigint[]),
      m.forgiven, nullif(entry_of($uncounted::smallint[], m.client_id, $client_ids::bigint[]), 0)),
    -- Of what an earlier holder may have sent, too.
    maybe_sent = CASE WHEN entry_of($maybe_sent::boolean[], m.client_id, $client_ids::bigint[])
      OR (SELECT doubtful FROM held) THEN true ELSE m.maybe_sent END,
    endpoint_status = entry_of($endpoint_statuses::smallint[], m.client_id, $client_ids::bigint[]),
    endpoint_code = entry_of($endpoint_codes::bigint[], m.client_id, $client_ids::bigint[]),
    duration_ms = entry_of($durations::int[], m.client_id, $client_ids::bigint[]),
    due_at = coalesce(entry_of($due_times::timestamptz[], m.client_id, $client_ids::bigint[]), m.due_at),
    settled_at = CASE
      WHEN entry_of($statuses::smallint[], m.client_id, $client_ids::bigint[]) <> {Status.PENDING} THEN now() END
  FROM tick
  WHERE m.bucket = $bucket AND m.mailing_id = $mailing_id AND m.client_id BETWEEN $first_id AND $last_id
    AND m.client_id = ANY($client_ids::bigint[]) AND m.status = {Status.PENDING}
    -- Not a message that this call settled before, its answer lost, and that was put back since.
    AND m.attempts = entry_of($attempts_before::smallint[], m.client_id, $client_ids::bigint[])
  RETURNING m.client_id, m.status, m.reason, m.attempts, m.duration_ms,
    entry_of($attempted::smallint[], m.client_id, $client_ids::bigint[]) AS attempted
), requeued AS (
  -- A retry further ahead than it can be was computed from a clock that was set back since.
  INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at)
  SELECT $bucket, $mailing_id, nextval('batch_no'), client_ids, CASE
      WHEN entry_of($attempted::smallint[], client_ids[1], $client_ids::bigint[]) > 0 THEN least(due_at, now() + (
        SELECT max_backoff + interval '5 s' FROM mailings WHERE id = $mailing_id
      )) ELSE due_at END, now()
  FROM (
    SELECT array_agg(r.client_id ORDER BY r.client_id) AS client_ids, r.due_at
    FROM unnest($requeued_ids::bigint[], $requeued_times::timestamptz[]) AS r(client_id, due_at) CROSS JOIN tick
    GROUP BY r.due_at
  ) g
), tried AS (
  INSERT INTO attempts
    (bucket, mailing_id, client_id, number, at, endpoint, error_class, endpoint_status, endpoint_code, duration_ms,
      response_excerpt)
  SELECT $bucket, $mailing_id, f.client_id, f.number, f.at, $endpoint, f.error_class, f.endpoint_status,
    f.endpoint_code, f.duration_ms, f.excerpt
  FROM unnest(
    $failure_ids::bigint[], $failure_numbers::smallint[], $failure_times::timestamptz[], $failure_classes::smallint[],
    $failure_statuses::smallint[], $failure_codes::bigint[], $failure_durations::int[], $failure_excerpts::text[]
  ) AS f(client_id, number, at, error_class, endpoint_status, endpoint_code, duration_ms, excerpt) CROSS JOIN tick
  ON CONFLICT DO NOTHING
), alike AS MATERIALIZED (
  -- The only pass over all messages; counters are summed from these few rows.
  SELECT status, reason, attempts, CASE WHEN status = {Status.DELIVERED} THEN latency_bin(duration_ms) END AS latency,
    count(*) AS n, sum(attempted) AS tried
  FROM settled GROUP BY 1, 2, 3, 4
), counted AS (
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n, attempts, slot, slot_n)
  SELECT $bucket, $mailing_id, status, reason, n, tried, rate_slot(now()), n FROM (
    SELECT status, reason, sum(n) AS n, sum(tried) AS tried
    FROM alike WHERE status <> {Status.PENDING} GROUP BY status, reason
    UNION ALL
    SELECT {Status.PENDING}, {Reason.NONE}, -coalesce(sum(n) FILTER (WHERE status <> {Status.PENDING}), 0),
      coalesce(sum(tried) FILTER (WHERE status = {Status.PENDING}), 0)
    FROM alike
  ) c
  ORDER BY status, reason
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET
    n = k.n + excluded.n, attempts = k.attempts + excluded.attempts, last_at = excluded.last_at,
    slot = excluded.slot,
    slot_n = CASE WHEN k.slot = excluded.slot THEN k.slot_n + excluded.n ELSE excluded.n END,
    before_n = CASE excluded.slot - k.slot WHEN 0 THEN k.before_n WHEN 1 THEN k.slot_n ELSE 0 END
), figured AS (
  INSERT INTO mailing_figures AS g (bucket, mailing_id, kind, key, n)
  SELECT $bucket, $mailing_id, kind, key, sum(n)
  FROM alike CROSS JOIN LATERAL (VALUES
    ({Figure.ATTEMPTS}, attempts::bigint, status <> {Status.PENDING}),
    ({Figure.LATENCY}, latency::bigint, latency IS NOT NULL),
    ({Figure.DELIVERED}, floor(extract(epoch FROM now()) / 60)::bigint, status = {Status.DELIVERED}),
    ({Figure.FAILED}, floor(extract(epoch FROM now()) / 60)::bigint, status = {Status.FAILED})
  ) AS f (kind, key, counts)
  WHERE counts GROUP BY kind, key ORDER BY kind, key
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = g.n + excluded.n
), wrote AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  SELECT $bucket, (SELECT journal_seq FROM tick), $mailing_id, array_agg(client_id),
    CASE WHEN min(status) = max(status) THEN ARRAY[min(status)] ELSE array_agg(status) END
  FROM settled WHERE status <> {Status.PENDING} HAVING count(*) > 0
), {logged}
SELECT (SELECT count(*) FROM held) AS held, (SELECT count(*) FROM settled WHERE status <> {Status.PENDING}) AS settled;

-- fragment: matches
-- The filter of a mailing, except for its ids; NULL matches everybody.
($tags::text[] IS NULL OR tag = ANY($tags))
    AND ($operator_codes::text[] IS NULL OR operator_code = ANY($operator_codes))
    AND ($timezones::text[] IS NULL OR timezone = ANY($timezones))
    AND ($attributes::jsonb IS NULL OR attributes @> $attributes)

-- fragment: reachable
-- Neither opted out nor added again after the phone got the mailing.
NOT opted_out AND (received IS NULL OR $mailing_id <> ALL (received))

-- fragment: take_in
-- Gives each client of `audience` a message, puts the pending ones into batches that are due
-- together, and ends at once those whose window does not open before the mailing's end.
inserted AS (
  INSERT INTO messages (bucket, mailing_id, client_id, due_at, status, reason, settled_at)
  SELECT $bucket, $mailing_id, a.id, a.due_at,
    CASE WHEN a.due_at < h.ends_at THEN {Status.PENDING} ELSE {Status.EXPIRED} END,
    CASE WHEN a.due_at < h.ends_at THEN {Reason.NONE} WHEN h.ends_at <= now() THEN {Reason.MAILING_ENDED}
      ELSE {Reason.WINDOW_NOT_BEFORE_END} END,
    CASE WHEN a.due_at < h.ends_at THEN NULL ELSE now() END
  FROM audience a CROSS JOIN held h
  -- Not ON CONFLICT: a speculative insertion writes a quarter more WAL, and nobody else inserts
  -- while `held` is locked. The LIMIT makes it a look-up per client; NOT EXISTS might read the
  -- whole mailing instead.
  LEFT JOIN LATERAL (
    SELECT true AS present FROM messages
    WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id = a.id LIMIT 1
  ) m ON true
  WHERE m.present IS NULL
  RETURNING client_id, due_at, status, reason
), numbered AS (
  SELECT client_id, due_at, (row_number() OVER (PARTITION BY due_at ORDER BY client_id) - 1) / $batch_size AS part
  FROM inserted WHERE status = {Status.PENDING}
), opened AS (
  INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at)
  SELECT $bucket, $mailing_id, nextval('batch_no'), client_ids, due_at, now()
  FROM (SELECT array_agg(client_id ORDER BY client_id) AS client_ids, due_at FROM numbered GROUP BY due_at, part) g
), tick AS (
  UPDATE buckets SET journal_seq = journal_seq + 1
  WHERE bucket = $bucket AND EXISTS (SELECT FROM inserted WHERE status <> {Status.PENDING})
  RETURNING journal_seq
), counted AS (
  -- Reads tick, so that the bucket is locked before the counters, as in settle.
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
  SELECT $bucket, $mailing_id, status, reason, n FROM (
    SELECT status, reason, count(*) AS n FROM inserted GROUP BY status, reason ORDER BY status, reason
  ) c WHERE (SELECT count(*) FROM tick) >= 0
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n, last_at = excluded.last_at
), figured AS (
  -- Messages that ended at once took no attempt. Reads tick, too.
  INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
  SELECT $bucket, $mailing_id, {Figure.ATTEMPTS}, 0, count(*) FROM inserted
  WHERE status <> {Status.PENDING} AND (SELECT count(*) FROM tick) >= 0 HAVING count(*) > 0
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n
), wrote AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  SELECT $bucket, (SELECT journal_seq FROM tick), $mailing_id, array_agg(client_id), ARRAY[{Status.EXPIRED}]
  FROM inserted WHERE status <> {Status.PENDING} HAVING count(*) > 0
)

-- name: expand
-- Takes in the next clients of a bucket, in the order of their ids. `held` is empty, and nothing
-- happens, when another replica holds or has moved the position or the mailing was changed. An
-- audience that is fixed at the start takes in no client that was added since.
WITH held AS (
  SELECT coalesce(m.ends_at, 'infinity') AS ends_at,
    CASE m.audience_mode WHEN {AudienceMode.SNAPSHOT} THEN e.started_at ELSE 'infinity' END AS added_until
  FROM expansions e JOIN mailings m ON m.id = e.mailing_id
  WHERE e.bucket = $bucket AND e.mailing_id = $mailing_id AND e.last_client_id = $position AND NOT e.finished
    AND m.version = $version AND m.state IN ({MailingState.RUNNING}, {MailingState.PAUSED})
  FOR UPDATE OF e SKIP LOCKED
), seen AS MATERIALIZED (
  SELECT c.* FROM held CROSS JOIN LATERAL (
    SELECT id, operator_code, tag, timezone, window_start, window_length, attributes, opted_out,
      created_at, received
    FROM clients
    WHERE bucket = $bucket AND id > $position AND ($chosen_ids::bigint[] IS NULL OR id = ANY($chosen_ids))
    ORDER BY id LIMIT $limit
  ) c
), audience AS MATERIALIZED (
  SELECT id, window_opens_at(timezone, window_start, window_length, now()) AS due_at
  FROM seen
  WHERE {reachable} AND created_at <= (SELECT added_until FROM held)
    AND {matches}
), {take_in}, moved AS (
  UPDATE expansions
  SET last_client_id = greatest(last_client_id, (SELECT max(id) FROM seen)),
      finished = (SELECT count(*) FROM seen) < $limit
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND EXISTS (SELECT FROM held)
  RETURNING last_client_id, finished
)
SELECT last_client_id AS position, finished,
  (SELECT count(*) FROM seen) AS seen, (SELECT count(*) FROM inserted) AS inserted
FROM moved;

-- name: expand_anew
-- Begins another pass over all clients for open mailings, which takes in matching clients without a
-- message. Needed when the filter changes, and when a mailing runs again after a time in which
-- changes of clients were not kept for it. The new position is one that no step in progress knows,
-- so that none continues with the old filter.
UPDATE expansions e SET last_client_id = -m.version, finished = false, change_seq = s.seq
FROM mailings m, client_change_seqs s
WHERE m.id = ANY($ids::bigint[]) AND m.audience_mode = {AudienceMode.OPEN}
  AND e.mailing_id = m.id AND e.bucket = s.bucket;
