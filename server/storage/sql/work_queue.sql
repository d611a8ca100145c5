-- name: scan
-- Open work that nobody holds, by mailing and bucket. Takes no lock.
SELECT b.mailing_id, b.bucket, count(*) AS batches, m.version, m.priority, m.endpoint,
  m.state = 5 OR coalesce(m.ends_at <= now(), false) AS over
FROM batches b JOIN mailings m ON m.id = b.mailing_id
WHERE b.due_at <= now() AND b.lease_until <= now() AND (m.state IN (2, 5) OR m.ends_at <= now())
  AND NOT EXISTS (SELECT FROM dispatch_settings WHERE paused)
GROUP BY b.mailing_id, b.bucket, m.id;

-- name: definitions
-- What the dispatcher needs to know of mailings, as of now; nothing while all sending is
-- stopped, so that what is leased is given up. The filter of an open audience goes with it: who
-- no longer matches is left out. A fixed audience stays as it was at the start.
SELECT id, version, state, text, endpoint, semantics, priority, ends_at, max_attempts, max_rate, important,
  CASE WHEN audience_mode = 1 AND filter <> '{}' THEN filter END AS filter,
  extract(epoch FROM initial_backoff)::float8 AS initial_backoff,
  extract(epoch FROM max_backoff)::float8 AS max_backoff
FROM mailings WHERE id = ANY($1::bigint[]) AND NOT EXISTS (SELECT FROM dispatch_settings WHERE paused);

-- name: claim
-- Leases open batches. The rise of the fence takes all power from whoever held them before;
-- a mailing changed since the scan gives none, and neither does one that was stopped between the
-- scan and the look at its definition, which then says so. A holder that is still named gave
-- nothing back: what it sent is not known, and stays so until somebody settles the batch.
WITH picked AS (
  SELECT no, holder FROM batches
  WHERE bucket = $1 AND mailing_id = $2 AND due_at <= now() AND lease_until <= now()
    AND EXISTS (
      SELECT FROM mailings
      WHERE id = $2 AND version = $6 AND state = $7 AND (state IN (2, 5) OR ends_at <= now())
    )
    AND NOT EXISTS (SELECT FROM dispatch_settings WHERE paused)
  ORDER BY no LIMIT $3
  FOR UPDATE SKIP LOCKED
)
UPDATE batches b
SET fence = b.fence + 1, lease_until = now() + $4::interval, holder = $5, doubtful = b.doubtful OR p.holder IS NOT NULL
FROM picked p
WHERE b.bucket = $1 AND b.mailing_id = $2 AND b.no = p.no
RETURNING b.no, b.fence, b.client_ids, b.doubtful AS reclaimed, now() AS claimed_at;

-- name: release_orphans
-- Frees the batches whose claim succeeded without this replica ever hearing of it, because
-- the connection broke before the answer came. $2 are those that it does know of. It sent
-- nothing of them, but those who held them before may have.
UPDATE batches SET lease_until = '-infinity', holder = NULL
WHERE holder = $1 AND lease_until > now() AND no <> ALL($2::bigint[]);

-- name: release_all
-- Frees every batch: for when it is known that no holder is alive. What they sent is not known.
UPDATE batches SET lease_until = '-infinity' WHERE lease_until > now();

-- fragment: recipient
-- What tells whether the message may be sent now. `skip_reason` is a reason or 0; `opens_at` is set
-- when it is to be sent later: when the client's window opens, or when its next attempt is due
-- (its batch may be claimed before that if it is due after the end). `closes_in` is NULL
-- without a window. Parameters 6 to 10 are the filter, all NULL for everybody.
m.client_id, m.attempts, coalesce(m.forgiven, 0) AS uncounted, c.phone,
  CASE WHEN c.opted_out THEN 8
    WHEN ($6::text[] IS NULL OR c.tag = ANY($6))
      AND ($7::text[] IS NULL OR c.operator_code = ANY($7))
      AND ($8::text[] IS NULL OR c.timezone = ANY($8))
      AND ($9::jsonb IS NULL OR c.attributes @> $9)
      AND ($10::bigint[] IS NULL OR m.client_id = ANY($10)) THEN 0
    ELSE 9 END AS skip_reason,
  CASE WHEN c.window_start IS NOT NULL THEN
      nullif(window_opens_at(c.timezone, c.window_start, c.window_length, greatest(m.due_at, now())), now())
    WHEN m.due_at > now() THEN m.due_at END AS opens_at,
  CASE WHEN c.window_start IS NOT NULL THEN
    extract(epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now())::float8
  END AS closes_in

-- fragment: pending
-- The messages of a batch that are still to be sent. The bounds beside the array keep the
-- index range tight whatever the planner believes about the array; the LIMIT keeps the
-- clients from being joined any other way than one by one, by their key. Parameters:
-- bucket, mailing, client ids, the lowest and the highest of them.
FROM messages m
LEFT JOIN LATERAL (SELECT * FROM clients WHERE bucket = $1 AND id = m.client_id LIMIT 1) c ON true
WHERE m.bucket = $1 AND m.mailing_id = $2 AND m.client_id = ANY($3::bigint[])
  AND m.client_id BETWEEN $4 AND $5 AND m.status = 1
ORDER BY m.client_id

-- name: fetch
-- The recipients of a claimed batch whose text is the same for all.
SELECT {recipient}
{pending};

-- name: fetch_values
-- The same with the values that a text can name.
SELECT {recipient},
  c.operator_code, c.tag, c.timezone, c.attributes
{pending};

-- name: admit
-- Notes that the mailing is about to be sent to clients, and returns those to whom it must not
-- be: they got, or are about to get, $5 messages of others within $4 already. What did not arrive
-- in the end does not count. $6 says that the mailing goes to everybody all the same. One row
-- per client, so two mailings that want the same client wait for one another.
WITH asked AS (
  SELECT DISTINCT id FROM unnest($3::bigint[]) AS id
), noted AS (
  INSERT INTO client_sends AS s (bucket, client_id, mailing_ids, sent_at)
  SELECT $1, id, ARRAY[$2::bigint], ARRAY[now()] FROM asked ORDER BY id
  ON CONFLICT (bucket, client_id) DO UPDATE SET (mailing_ids, sent_at) = (
    SELECT array_agg(l.id ORDER BY l.at), array_agg(l.at ORDER BY l.at)
    FROM (
      SELECT o.id, o.at FROM unnest(s.mailing_ids, s.sent_at) AS o(id, at)
      WHERE o.at > now() - $4::interval AND o.id <> $2
      UNION ALL SELECT $2, now()
    ) l
  )
  WHERE $6::boolean OR $5::bigint > (
    SELECT count(*) FROM unnest(s.mailing_ids, s.sent_at) AS o(id, at)
    WHERE o.at > now() - $4::interval AND o.id <> $2 AND NOT EXISTS (
      SELECT FROM messages m
      WHERE m.bucket = $1 AND m.mailing_id = o.id AND m.client_id = s.client_id AND m.status IN (3, 4, 5, 6)
    )
  )
  RETURNING client_id
)
SELECT id FROM asked EXCEPT SELECT client_id FROM noted;

-- fragment: logged
-- The log's entries of bucket $1 and mailing $2, after everything else ($30 to $34 run parallel).
-- Without any, nothing is read or locked.
numbered AS (
  UPDATE log_seqs SET seq = seq + cardinality($30::smallint[])
  WHERE cardinality($30::smallint[]) > 0 AND bucket = $1 AND EXISTS (SELECT FROM tick)
  RETURNING seq
), logged AS (
  INSERT INTO log (bucket, no, level, event, text, mailing_id, message_id, client_id, details)
  SELECT $1, n.seq - cardinality($30::smallint[]) + e.ordinality, e.level, e.event, e.text, $2,
    CASE WHEN e.client_id > 0 THEN $2::bigint << 32 | e.client_id ELSE 0 END, e.client_id, e.details::jsonb
  FROM numbered n
  CROSS JOIN unnest($30::smallint[], $31::text[], $32::text[], $33::bigint[], $34::text[])
    WITH ORDINALITY AS e(level, event, text, client_id, details, ordinality)
)

-- name: settle
-- Records outcomes of a leased batch, all in one statement and only under the fence it was
-- claimed with. The arrays run parallel to the ascending client ids in $6 and are read by
-- entry_of: no join, whose plan would depend on statistics that a new mailing does not have.
-- $5 says that the batch is done with: it is removed, or, with what was not begun ($27), given
-- back. Messages that stay pending otherwise must stand in the requeued batches ($16 clients,
-- $17 times).
WITH held AS (
  SELECT no FROM batches WHERE bucket = $1 AND mailing_id = $2 AND no = $3 AND fence = $4 FOR UPDATE
), closed AS (
  DELETE FROM batches b USING held
  WHERE $5 AND cardinality($27::bigint[]) = 0 AND b.bucket = $1 AND b.mailing_id = $2 AND b.no = held.no
), released AS (
  -- The fence rises, so that the same call, repeated because its answer was lost, finds nothing.
  UPDATE batches b SET client_ids = $27, fence = b.fence + 1, lease_until = '-infinity', holder = NULL,
    doubtful = false FROM held
  WHERE $5 AND cardinality($27::bigint[]) > 0 AND b.bucket = $1 AND b.mailing_id = $2 AND b.no = held.no
), tick AS (
  -- The bucket's row is locked before its messages and counters: one order for everybody.
  UPDATE buckets SET journal_seq = journal_seq + 1
  WHERE bucket = $1 AND EXISTS (SELECT FROM held)
  RETURNING journal_seq
), settled AS (
  UPDATE messages m SET
    status = entry_of($7::smallint[], m.client_id, $6::bigint[]),
    reason = entry_of($8::smallint[], m.client_id, $6::bigint[]),
    attempts = m.attempts + entry_of($9::smallint[], m.client_id, $6::bigint[]),
    forgiven = coalesce(m.forgiven + entry_of($28::smallint[], m.client_id, $6::bigint[]),
      m.forgiven, nullif(entry_of($28::smallint[], m.client_id, $6::bigint[]), 0)),
    endpoint_status = entry_of($10::smallint[], m.client_id, $6::bigint[]),
    endpoint_code = entry_of($11::bigint[], m.client_id, $6::bigint[]),
    duration_ms = entry_of($12::int[], m.client_id, $6::bigint[]),
    due_at = coalesce(entry_of($13::timestamptz[], m.client_id, $6::bigint[]), m.due_at),
    settled_at = CASE WHEN entry_of($7::smallint[], m.client_id, $6::bigint[]) <> 1 THEN now() END
  FROM tick
  WHERE m.bucket = $1 AND m.mailing_id = $2 AND m.client_id BETWEEN $14 AND $15
    AND m.client_id = ANY($6::bigint[]) AND m.status = 1
    -- Not one that was settled by this call before, its answer lost, and put back since.
    AND m.attempts = entry_of($29::smallint[], m.client_id, $6::bigint[])
  RETURNING m.client_id, m.status, m.reason, m.attempts, m.duration_ms,
    entry_of($9::smallint[], m.client_id, $6::bigint[]) AS attempted
), requeued AS (
  INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)
  SELECT $1, $2, nextval('batch_no'), client_ids, due_at
  FROM (
    SELECT array_agg(r.client_id ORDER BY r.client_id) AS client_ids, r.due_at
    FROM unnest($16::bigint[], $17::timestamptz[]) AS r(client_id, due_at) CROSS JOIN tick
    GROUP BY r.due_at
  ) g
), tried AS (
  INSERT INTO attempts
    (bucket, mailing_id, client_id, number, at, endpoint, error_class, endpoint_status, endpoint_code, duration_ms, response_excerpt)
  SELECT $1, $2, f.client_id, f.number, f.at, $18, f.error_class, f.endpoint_status, f.endpoint_code, f.duration_ms, f.excerpt
  FROM unnest($19::bigint[], $20::smallint[], $21::timestamptz[], $22::smallint[], $23::smallint[], $24::bigint[], $25::int[], $26::text[])
    AS f(client_id, number, at, error_class, endpoint_status, endpoint_code, duration_ms, excerpt) CROSS JOIN tick
  ON CONFLICT DO NOTHING
), alike AS MATERIALIZED (
  -- The one look at all of them; what is counted is summed from these few rows.
  SELECT status, reason, attempts, CASE WHEN status = 2 THEN latency_bin(duration_ms) END AS latency,
    count(*) AS n, sum(attempted) AS tried
  FROM settled GROUP BY 1, 2, 3, 4
), counted AS (
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n, attempts, slot, slot_n)
  SELECT $1, $2, status, reason, n, tried, rate_slot(now()), n FROM (
    SELECT status, reason, sum(n) AS n, sum(tried) AS tried FROM alike WHERE status <> 1 GROUP BY status, reason
    UNION ALL
    SELECT 1, 0, -coalesce(sum(n) FILTER (WHERE status <> 1), 0), coalesce(sum(tried) FILTER (WHERE status = 1), 0)
    FROM alike
  ) c
  ORDER BY status, reason
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET
    n = k.n + excluded.n, attempts = k.attempts + excluded.attempts, last_at = excluded.last_at,
    slot = excluded.slot,
    slot_n = CASE WHEN k.slot = excluded.slot THEN k.slot_n + excluded.n ELSE excluded.n END,
    before_n = CASE excluded.slot - k.slot WHEN 0 THEN k.before_n WHEN 1 THEN k.slot_n ELSE 0 END
), figured AS (
  -- The kinds are those of mailing_figures.
  INSERT INTO mailing_figures AS g (bucket, mailing_id, kind, key, n)
  SELECT $1, $2, kind, key, sum(n)
  FROM alike CROSS JOIN LATERAL (VALUES
    (1, attempts::bigint, status <> 1),
    (2, latency::bigint, latency IS NOT NULL),
    (3, floor(extract(epoch FROM now()) / 60)::bigint, status = 2),
    (4, floor(extract(epoch FROM now()) / 60)::bigint, status = 3)
  ) AS f (kind, key, counts)
  WHERE counts GROUP BY kind, key ORDER BY kind, key
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = g.n + excluded.n
), wrote AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  SELECT $1, (SELECT journal_seq FROM tick), $2, array_agg(client_id),
    CASE WHEN min(status) = max(status) THEN ARRAY[min(status)] ELSE array_agg(status) END
  FROM settled WHERE status <> 1 HAVING count(*) > 0
), {logged}
SELECT (SELECT count(*) FROM held) AS held, (SELECT count(*) FROM settled WHERE status <> 1) AS settled;
