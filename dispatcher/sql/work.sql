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
-- stopped, so that what is leased is given up.
SELECT id, version, state, text, endpoint, semantics, priority, ends_at, max_attempts,
  extract(epoch FROM initial_backoff)::float8 AS initial_backoff,
  extract(epoch FROM max_backoff)::float8 AS max_backoff
FROM mailings WHERE id = ANY($1::bigint[]) AND NOT EXISTS (SELECT FROM dispatch_settings WHERE paused);

-- name: claim
-- Leases open batches. The rise of the fence takes all power from whoever held them before;
-- a mailing changed since the scan gives none.
WITH picked AS (
  SELECT no FROM batches
  WHERE bucket = $1 AND mailing_id = $2 AND due_at <= now() AND lease_until <= now()
    AND EXISTS (SELECT FROM mailings WHERE id = $2 AND version = $6 AND state = $7)
    AND NOT EXISTS (SELECT FROM dispatch_settings WHERE paused)
  ORDER BY no LIMIT $3
  FOR UPDATE SKIP LOCKED
)
UPDATE batches b
SET fence = b.fence + 1, lease_until = now() + $4::interval, holder = $5
FROM picked p
WHERE b.bucket = $1 AND b.mailing_id = $2 AND b.no = p.no
RETURNING b.no, b.fence, b.client_ids, now() AS claimed_at;

-- name: release_orphans
-- Frees the batches whose claim succeeded without this replica ever hearing of it, because
-- the connection broke before the answer came. $2 are those that it does know of.
UPDATE batches SET lease_until = '-infinity'
WHERE holder = $1 AND lease_until > now() AND no <> ALL($2::bigint[]);

-- name: release_all
-- Frees every batch: for when it is known that no holder is alive.
UPDATE batches SET lease_until = '-infinity' WHERE lease_until > now();

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
-- The recipients of a claimed batch whose text is the same for all. `closes_in` is NULL
-- without a window; `opens_at` is set when the window is closed now.
SELECT m.client_id, m.attempts, c.phone, c.opted_out,
  CASE WHEN c.window_start IS NOT NULL THEN
    nullif(window_opens_at(c.timezone, c.window_start, c.window_length, now()), now()) END AS opens_at,
  CASE WHEN c.window_start IS NOT NULL THEN
    extract(epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now())::float8
  END AS closes_in
{pending};

-- name: fetch_values
-- The same with the values that a text can name.
SELECT m.client_id, m.attempts, c.phone, c.opted_out,
  CASE WHEN c.window_start IS NOT NULL THEN
    nullif(window_opens_at(c.timezone, c.window_start, c.window_length, now()), now()) END AS opens_at,
  CASE WHEN c.window_start IS NOT NULL THEN
    extract(epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now())::float8
  END AS closes_in,
  c.operator_code, c.tag, c.timezone, c.attributes
{pending};

-- name: settle
-- Records outcomes of a leased batch, all in one statement and only under the fence it was
-- claimed with. The arrays run parallel to the ascending client ids in $6 and are read by
-- entry_of: no join, whose plan would depend on statistics that a new mailing does not have.
-- $5 says that the batch is done with; messages that stay
-- pending must then stand in the requeued batches ($16 clients, $17 times).
WITH held AS (
  SELECT no FROM batches WHERE bucket = $1 AND mailing_id = $2 AND no = $3 AND fence = $4 FOR UPDATE
), closed AS (
  DELETE FROM batches b USING held WHERE $5 AND b.bucket = $1 AND b.mailing_id = $2 AND b.no = held.no
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
    endpoint_status = entry_of($10::smallint[], m.client_id, $6::bigint[]),
    endpoint_code = entry_of($11::bigint[], m.client_id, $6::bigint[]),
    duration_ms = entry_of($12::int[], m.client_id, $6::bigint[]),
    due_at = coalesce(entry_of($13::timestamptz[], m.client_id, $6::bigint[]), m.due_at),
    settled_at = CASE WHEN entry_of($7::smallint[], m.client_id, $6::bigint[]) <> 1 THEN now() END
  FROM tick
  WHERE m.bucket = $1 AND m.mailing_id = $2 AND m.client_id BETWEEN $14 AND $15
    AND m.client_id = ANY($6::bigint[]) AND m.status = 1
  RETURNING m.client_id, m.status, m.reason, entry_of($9::smallint[], m.client_id, $6::bigint[]) AS attempted
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
), counted AS (
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n, attempts)
  SELECT $1, $2, status, reason, n, tried FROM (
    SELECT status, reason, count(*) AS n, sum(attempted) AS tried FROM settled WHERE status <> 1 GROUP BY status, reason
    UNION ALL
    SELECT 1, 0, -count(*) FILTER (WHERE status <> 1), coalesce(sum(attempted) FILTER (WHERE status = 1), 0) FROM settled
  ) c
  ORDER BY status, reason
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET
    n = k.n + excluded.n, attempts = k.attempts + excluded.attempts, last_at = excluded.last_at,
    past_at = CASE WHEN k.mark_at < excluded.last_at - interval '2 s' THEN k.mark_at ELSE k.past_at END,
    past_n = CASE WHEN k.mark_at < excluded.last_at - interval '2 s' THEN k.mark_n ELSE k.past_n END,
    mark_at = CASE WHEN k.mark_at < excluded.last_at - interval '2 s' THEN excluded.last_at ELSE k.mark_at END,
    mark_n = CASE WHEN k.mark_at < excluded.last_at - interval '2 s' THEN k.n ELSE k.mark_n END
), wrote AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  SELECT $1, (SELECT journal_seq FROM tick), $2, array_agg(client_id),
    CASE WHEN min(status) = max(status) THEN ARRAY[min(status)] ELSE array_agg(status) END
  FROM settled WHERE status <> 1 HAVING count(*) > 0
)
SELECT (SELECT count(*) FROM held) AS held, (SELECT count(*) FROM settled WHERE status <> 1) AS settled;
