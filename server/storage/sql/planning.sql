-- name: poll
-- What there is to do and when the next thing falls due: the one query of an idle dispatcher.
-- ORDER BY and LIMIT keep to the index on due_at, whatever the planner believes of its range.
WITH due AS MATERIALIZED (
  SELECT b.mailing_id, b.lease_until
  FROM batches b CROSS JOIN LATERAL (
    SELECT FROM mailings WHERE id = b.mailing_id AND (state IN (2, 5) OR ends_at <= now()) LIMIT 1
  ) m
  WHERE b.due_at <= now() ORDER BY b.due_at LIMIT 10000
)
SELECT
  EXISTS (SELECT FROM mailings WHERE state = 1 AND starts_at <= now()) AS starts,
  EXISTS (
    SELECT FROM expansions e JOIN mailings m ON m.id = e.mailing_id AND m.state = 2 WHERE NOT e.finished
  ) AS expands,
  EXISTS (SELECT FROM mailings WHERE state = 2 AND recheck_at <= now()) AS rechecks,
  EXISTS (SELECT FROM mailings WHERE state = 2 AND ends_at <= now())
    OR EXISTS (SELECT FROM mailings WHERE state = 3 AND ends_at <= now()) AS ends,
  EXISTS (SELECT FROM mailings WHERE state = 2) AS running,
  EXISTS (SELECT FROM due WHERE lease_until <= now()) AS claims,
  extract(epoch FROM least(
    (SELECT min(due_at) FROM batches WHERE due_at > now()),
    (SELECT min(lease_until) FROM due WHERE lease_until > now()),
    (SELECT min(starts_at) FROM mailings WHERE state = 1),
    (SELECT min(ends_at) FROM mailings WHERE state = 2 AND ends_at > now()),
    (SELECT min(ends_at) FROM mailings WHERE state = 3 AND ends_at > now()),
    (SELECT min(recheck_at) FROM mailings WHERE state = 2 AND recheck_at > now() AND recheck_at < 'infinity')
  ) - clock_timestamp())::float8 AS next_in;

-- name: start_due
-- Starts the mailings whose time has come; rechecks begin when they are expanded.
UPDATE mailings SET state = 2, recheck_at = 'infinity', updated_at = now()
WHERE state = 1 AND starts_at <= now()
RETURNING id;

-- name: open_expansions
-- Marks where the expansion of a started mailing begins, before any client is read: a
-- client changed from here on is found through client_changes. One that ran before, and was
-- scheduled again, keeps what it has.
INSERT INTO expansions (bucket, mailing_id, change_seq)
SELECT s.bucket, i.id, s.seq FROM client_change_seqs s CROSS JOIN unnest($1::bigint[]) AS i(id)
ON CONFLICT DO NOTHING;

-- name: expand_anew
-- Begins another pass over all clients for open mailings: whoever matches and has no message yet
-- is taken in. That is needed when the filter changes, and when a mailing runs again after a time
-- in which changes of clients were not kept for it. The new position is one that no step under
-- way can know, so that none goes on with the filter it had read.
UPDATE expansions e SET last_client_id = -m.version, finished = false, change_seq = s.seq
FROM mailings m, client_change_seqs s
WHERE m.id = ANY($1::bigint[]) AND m.audience_mode = 1 AND e.mailing_id = m.id AND e.bucket = s.bucket;

-- name: expandable
-- The mailings that still have clients to take in, with their open due batches: expansion
-- stays only a little ahead of sending. Those that have $1 of them come last: they wait, and
-- must not keep others of a lower priority out of the list.
SELECT m.id, m.version, m.filter, m.semantics, m.max_rate, e.buckets, e.positions,
  o.batches AS open_batches, coalesce(m.ends_at <= now(), false) AS over
FROM (
  SELECT mailing_id, array_agg(bucket) AS buckets, array_agg(last_client_id) AS positions
  FROM expansions WHERE NOT finished GROUP BY mailing_id
) e
JOIN mailings m ON m.id = e.mailing_id
CROSS JOIN LATERAL (
  SELECT count(*) AS batches FROM buckets b JOIN batches t ON t.bucket = b.bucket AND t.mailing_id = m.id
  WHERE t.due_at <= now()
) o
WHERE m.state = 2 OR (m.state = 3 AND m.ends_at <= now())
ORDER BY o.batches >= $1::int, m.priority DESC, o.batches, m.id
LIMIT 50;

-- fragment: take_in
-- Gives each client of `audience` a message, puts the pending ones into batches that fall
-- due together, and settles at once those whose window does not open before the end.
-- Parameters 1 to 3 are bucket, mailing and batch size.
inserted AS (
  INSERT INTO messages (bucket, mailing_id, client_id, due_at, status, reason, settled_at)
  SELECT $1, $2, a.id, a.due_at,
    CASE WHEN a.due_at < h.ends_at THEN 1 ELSE 4 END,
    CASE WHEN a.due_at < h.ends_at THEN 0 WHEN h.ends_at <= now() THEN 4 ELSE 5 END,
    CASE WHEN a.due_at < h.ends_at THEN NULL ELSE now() END
  FROM audience a CROSS JOIN held h
  -- Not ON CONFLICT: a speculative insertion writes a quarter more WAL. Nobody else inserts
  -- while `held` is locked, so what is not there now will not come. The LIMIT makes it a
  -- look-up per client; as NOT EXISTS it may read the whole mailing instead.
  LEFT JOIN LATERAL (
    SELECT true AS present FROM messages WHERE bucket = $1 AND mailing_id = $2 AND client_id = a.id LIMIT 1
  ) m ON true
  WHERE m.present IS NULL
  RETURNING client_id, due_at, status, reason
), numbered AS (
  SELECT client_id, due_at, (row_number() OVER (PARTITION BY due_at ORDER BY client_id) - 1) / $3 AS part
  FROM inserted WHERE status = 1
), opened AS (
  INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)
  SELECT $1, $2, nextval('batch_no'), client_ids, due_at
  FROM (SELECT array_agg(client_id ORDER BY client_id) AS client_ids, due_at FROM numbered GROUP BY due_at, part) g
), tick AS (
  UPDATE buckets SET journal_seq = journal_seq + 1
  WHERE bucket = $1 AND EXISTS (SELECT FROM inserted WHERE status <> 1)
  RETURNING journal_seq
), counted AS (
  -- Reads tick, so that the bucket is locked before the counters, as settling does.
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
  SELECT $1, $2, status, reason, n FROM (
    SELECT status, reason, count(*) AS n FROM inserted GROUP BY status, reason ORDER BY status, reason
  ) c WHERE (SELECT count(*) FROM tick) >= 0
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n, last_at = excluded.last_at
), figured AS (
  -- Those settled at once took no attempt. Reads tick, too.
  INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
  SELECT $1, $2, 1, 0, count(*) FROM inserted
  WHERE status <> 1 AND (SELECT count(*) FROM tick) >= 0 HAVING count(*) > 0
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n
), wrote AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  SELECT $1, (SELECT journal_seq FROM tick), $2, array_agg(client_id), ARRAY[4]
  FROM inserted WHERE status <> 1 HAVING count(*) > 0
)

-- name: expand
-- Takes in the next clients of a bucket, in the order of their ids. `held` is empty when
-- another replica is at it, has moved on, or the mailing was changed: then nothing happens.
-- An audience that is fixed at the start takes no client in that was added since.
WITH held AS (
  SELECT coalesce(m.ends_at, 'infinity') AS ends_at,
    CASE m.audience_mode WHEN 2 THEN e.started_at ELSE 'infinity' END AS added_until
  FROM expansions e JOIN mailings m ON m.id = e.mailing_id
  WHERE e.bucket = $1 AND e.mailing_id = $2 AND e.last_client_id = $6 AND NOT e.finished
    AND m.version = $4 AND m.state IN (2, 3)
  FOR UPDATE OF e SKIP LOCKED
), seen AS MATERIALIZED (
  SELECT c.* FROM held CROSS JOIN LATERAL (
    SELECT id, operator_code, tag, timezone, window_start, window_length, attributes, opted_out,
      created_at
    FROM clients
    WHERE bucket = $1 AND id > $6 AND ($11::bigint[] IS NULL OR id = ANY($11))
    ORDER BY id LIMIT $5
  ) c
), audience AS MATERIALIZED (
  SELECT id, window_opens_at(timezone, window_start, window_length, now()) AS due_at
  FROM seen
  WHERE NOT opted_out AND created_at <= (SELECT added_until FROM held)
    AND ($7::text[] IS NULL OR tag = ANY($7))
    AND ($8::text[] IS NULL OR operator_code = ANY($8))
    AND ($9::text[] IS NULL OR timezone = ANY($9))
    AND ($10::jsonb IS NULL OR attributes @> $10)
), {take_in}, moved AS (
  UPDATE expansions
  SET last_client_id = greatest(last_client_id, (SELECT max(id) FROM seen)),
      finished = (SELECT count(*) FROM seen) < $5
  WHERE bucket = $1 AND mailing_id = $2 AND EXISTS (SELECT FROM held)
  RETURNING last_client_id, finished
)
SELECT last_client_id AS position, finished,
  (SELECT count(*) FROM seen) AS seen, (SELECT count(*) FROM inserted) AS inserted
FROM moved;

-- name: rechecks_due
-- Running open mailings that are to be looked at again, with the buckets in which clients
-- changed since the last look.
SELECT m.id, m.version, m.filter, m.semantics, m.max_rate,
  coalesce(array_agg(e.bucket) FILTER (WHERE s.seq > e.change_seq), '{}') AS buckets,
  coalesce(array_agg(e.change_seq) FILTER (WHERE s.seq > e.change_seq), '{}') AS positions
FROM (
  SELECT id, version, filter, semantics, max_rate FROM mailings
  WHERE state = 2 AND recheck_at <= now() ORDER BY recheck_at LIMIT 200
) m
CROSS JOIN client_change_seqs s
JOIN expansions e ON e.bucket = s.bucket AND e.mailing_id = m.id
GROUP BY m.id, m.version, m.filter, m.semantics, m.max_rate;

-- name: expand_changes
-- Takes in the clients that were changed since the last look and now match.
WITH held AS (
  SELECT coalesce(m.ends_at, 'infinity') AS ends_at
  FROM expansions e JOIN mailings m ON m.id = e.mailing_id
  WHERE e.bucket = $1 AND e.mailing_id = $2 AND e.change_seq = $6 AND e.finished
    AND m.version = $4 AND m.state = 2
  FOR UPDATE OF e SKIP LOCKED
), fresh AS MATERIALIZED (
  SELECT f.* FROM held CROSS JOIN LATERAL (
    SELECT seq, client_ids FROM client_changes WHERE bucket = $1 AND seq > $6 ORDER BY seq LIMIT $5
  ) f
), seen AS MATERIALIZED (
  -- LIMIT: one by one, by their key, however many the planner believes there are.
  SELECT c.id, operator_code, tag, timezone, window_start, window_length, attributes, opted_out
  FROM (SELECT DISTINCT unnest(client_ids) AS id FROM fresh) i
  CROSS JOIN LATERAL (SELECT * FROM clients WHERE bucket = $1 AND id = i.id LIMIT 1) c
), audience AS MATERIALIZED (
  SELECT id, window_opens_at(timezone, window_start, window_length, now()) AS due_at
  FROM seen
  WHERE NOT opted_out
    AND ($7::text[] IS NULL OR tag = ANY($7))
    AND ($8::text[] IS NULL OR operator_code = ANY($8))
    AND ($9::text[] IS NULL OR timezone = ANY($9))
    AND ($10::jsonb IS NULL OR attributes @> $10)
    AND ($11::bigint[] IS NULL OR id = ANY($11))
), {take_in}, moved AS (
  UPDATE expansions SET change_seq = (SELECT max(seq) FROM fresh)
  WHERE bucket = $1 AND mailing_id = $2 AND EXISTS (SELECT FROM fresh)
  RETURNING change_seq
)
SELECT change_seq AS position, (SELECT count(*) FROM fresh) < $5 AS finished,
  (SELECT count(*) FROM fresh) AS seen, (SELECT count(*) FROM inserted) AS inserted
FROM moved;

-- name: rechecked
-- Notes when a mailing is to be looked at next: soon where clients were found, else later
-- and later.
UPDATE mailings m
SET recheck_interval = i.next, recheck_at = now() + i.next
FROM (
  SELECT id, CASE WHEN id = ANY($2::bigint[]) THEN $3::interval
    ELSE greatest($3::interval, least(recheck_interval * 2, $4::interval)) END AS next
  FROM mailings WHERE id = ANY($1::bigint[])
) i
WHERE m.id = i.id AND m.state = 2;

-- name: expanded
-- Begins the rechecks of open mailings whose audience is completely expanded.
UPDATE mailings m SET recheck_interval = $1::interval, recheck_at = now() + $1::interval
WHERE m.state = 2 AND m.audience_mode = 1 AND m.recheck_at = 'infinity'
  AND EXISTS (SELECT FROM buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = m.id)
  AND NOT EXISTS (SELECT FROM expansions e WHERE e.mailing_id = m.id AND NOT e.finished);

-- name: expedite
-- Makes the waiting batches of mailings that are over due at once, and those that wait for a moment
-- after the end, so that they are claimed and settled without being sent.
UPDATE batches b SET due_at = now()
FROM mailings m
WHERE b.due_at > now() AND m.id = b.mailing_id
  AND (m.state = 5 OR (m.state = 2 AND m.ends_at <= b.due_at) OR m.ends_at <= now());

-- fragment: done
-- Past the end, or with a fixed audience, and nothing left to take in or to settle.
m.state IN (2, 3) AND ($1::bigint[] IS NULL OR m.id = ANY($1))
  AND (m.ends_at <= now() OR m.audience_mode = 2)
  AND NOT EXISTS (SELECT FROM expansions e WHERE e.mailing_id = m.id AND NOT e.finished)
  AND NOT EXISTS (SELECT FROM buckets k JOIN batches b ON b.bucket = k.bucket AND b.mailing_id = m.id)

-- name: lock_done
-- Locks the mailings that seem to have nothing left to do. Who puts messages back holds that lock,
-- so `complete`, whose snapshot is younger, sees them: one statement for both would not.
SELECT m.id FROM mailings m WHERE {done} ORDER BY m.id FOR UPDATE;

-- name: complete
-- Ends the mailings that have nothing left to do.
UPDATE mailings m SET state = 4, updated_at = now(), recheck_at = 'infinity'
WHERE {done}
RETURNING m.id;

-- name: forget_changes
-- Removes client changes that every live mailing has read.
DELETE FROM client_changes c
USING (
  SELECT s.bucket, coalesce(min(e.change_seq), s.seq) AS seq
  FROM client_change_seqs s
  LEFT JOIN (expansions e JOIN mailings m ON m.id = e.mailing_id AND m.state IN (2, 3)) ON e.bucket = s.bucket
  GROUP BY s.bucket
) read
WHERE c.bucket = read.bucket AND c.seq <= read.seq;
