-- The dispatcher's queue of batches: scanned, leased with their messages, and settled.

-- name: scan
-- Due batches that nobody holds, by mailing and bucket. Takes no lock.
SELECT b.mailing_id, b.bucket, count(*) AS batches, m.version, m.priority, m.endpoint,
  m.state = {MailingState.CANCELLED} OR coalesce(m.ends_at <= now(), false) AS over
FROM batches b JOIN mailings m ON m.id = b.mailing_id
WHERE b.due_at <= now() AND b.lease_until <= now()
  AND (m.state IN ({MailingState.RUNNING}, {MailingState.CANCELLED}) OR m.ends_at <= now())
  AND NOT EXISTS (SELECT FROM dispatch_settings WHERE paused)
GROUP BY b.mailing_id, b.bucket, m.id;

-- name: definitions
-- What the dispatcher needs of mailings, as of now. No rows while all sending is stopped, so that
-- leases are given up. The filter of an open audience is included, because clients who no longer
-- match it are skipped; a fixed audience (SNAPSHOT) stays as it was at the start.
SELECT id, version, state, title, text, endpoint, semantics, priority, ends_at, max_attempts, max_rate, important,
  CASE WHEN audience_mode = {AudienceMode.OPEN} AND filter <> '{}' THEN filter END AS filter,
  extract(epoch FROM initial_backoff)::float8 AS initial_backoff,
  extract(epoch FROM max_backoff)::float8 AS max_backoff
FROM mailings WHERE id = ANY($ids::bigint[]) AND NOT EXISTS (SELECT FROM dispatch_settings WHERE paused);

-- name: change_numbers
SELECT bucket, seq FROM client_change_seqs;

-- name: changed_clients
-- Those of $client_ids that the changes behind $after up to $until name; all of them when one of the
-- changes is no longer kept. Reads one row for each change, and is only asked when there are some.
WITH fresh AS MATERIALIZED (
  SELECT client_ids FROM client_changes WHERE bucket = $bucket AND seq > $after AND seq <= $until
)
SELECT h.id FROM unnest($client_ids::bigint[]) AS h(id) JOIN (SELECT unnest(client_ids) AS id FROM fresh) c USING (id)
UNION
SELECT h.id FROM unnest($client_ids::bigint[]) AS h(id)
WHERE (SELECT count(*) FROM fresh) < $until::bigint - $after::bigint;

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

-- name: release_orphans
-- Frees batches that this replica claimed without learning of it, because the connection was lost
-- before the answer arrived; $known are those it knows of. It sent nothing of the others, but an
-- earlier holder may have, so they stay marked.
UPDATE batches SET lease_until = '-infinity', holder = NULL
WHERE holder = $replica_id AND lease_until > now() AND no <> ALL($known::bigint[]);

-- name: release_all
-- Frees every batch, for when it is known that no holder is alive. What the holders sent is
-- unknown, so they stay named.
UPDATE batches SET lease_until = '-infinity' WHERE lease_until > now();

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

-- name: fetch_values
-- The same with the values for the placeholders of a text.
SELECT {recipient},
  c.operator_code, c.tag, c.timezone, c.attributes
{pending};

-- name: admit
-- Records that a mailing is about to be sent to clients, and returns those to whom it must not be:
-- they got, or are about to get, $cap messages of other mailings within $period. Messages that
-- ended undelivered do not count. An $important mailing goes to everybody. There is one row per
-- client, so two mailings to the same client wait for each other.
WITH asked AS (
  SELECT DISTINCT id FROM unnest($client_ids::bigint[]) AS id
), noted AS (
  INSERT INTO client_sends AS s (bucket, client_id, mailing_ids, sent_at)
  SELECT $bucket, id, ARRAY[$mailing_id::bigint], ARRAY[now()] FROM asked ORDER BY id
  ON CONFLICT (bucket, client_id) DO UPDATE SET (mailing_ids, sent_at) = (
    SELECT array_agg(l.id ORDER BY l.at), array_agg(l.at ORDER BY l.at)
    FROM (
      SELECT o.id, o.at FROM unnest(s.mailing_ids, s.sent_at) AS o(id, at)
      WHERE o.at > now() - $period::interval AND o.id <> $mailing_id
      UNION ALL SELECT $mailing_id, now()
    ) l
  )
  WHERE $important::boolean OR $cap::bigint > (
    SELECT count(*) FROM unnest(s.mailing_ids, s.sent_at) AS o(id, at)
    WHERE o.at > now() - $period::interval AND o.id <> $mailing_id AND NOT EXISTS (
      SELECT FROM messages m
      WHERE m.bucket = $bucket AND m.mailing_id = o.id AND m.client_id = s.client_id
        AND m.status IN ({Status.FAILED}, {Status.EXPIRED}, {Status.CANCELLED}, {Status.SKIPPED})
    )
  )
  RETURNING client_id
)
SELECT id FROM asked EXCEPT SELECT client_id FROM noted;

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
