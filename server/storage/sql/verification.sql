-- Whether the records agree with each other, one mailing in one bucket at a time.

-- name: list_places
-- The next $most mailings behind $after that have something in a bucket, or only $mailing_id (0: all), each with the
-- share of the bucket's messages up to it. What is left of a deleted mailing, or of one that keeps only its report, is not
-- looked at: it is being removed.
SELECT mailing_id, share
FROM (
  SELECT k.mailing_id, (sum(k.weight) OVER (ORDER BY k.mailing_id) / sum(k.weight) OVER ())::float8 AS share
  FROM (
    SELECT mailing_id, sum(weight) AS weight
    FROM (
      SELECT mailing_id, 1 + greatest(n, 0) AS weight FROM mailing_counts WHERE bucket = $bucket
      UNION ALL SELECT mailing_id, 1 FROM expansions WHERE bucket = $bucket
      UNION ALL SELECT mailing_id, 1 FROM batches WHERE bucket = $bucket
    ) parts
    WHERE $mailing_id::bigint IN (0, mailing_id)
    GROUP BY mailing_id
  ) k
  JOIN mailings g ON g.id = k.mailing_id AND g.messages_removed_at IS NULL
) places
WHERE mailing_id > $after
ORDER BY mailing_id
LIMIT $most;

-- name: is_kept
-- Whether a mailing still has its messages.
SELECT EXISTS (SELECT 1 FROM mailings WHERE id = $mailing_id AND messages_removed_at IS NULL);

-- name: list_all_buckets
SELECT bucket FROM buckets ORDER BY bucket;

-- name: find_feed_gap
-- How many numbers the change feed of a bucket lacks between the last one removed and the last one given.
SELECT b.journal_seq - f.floor - count(j.seq) AS missing
FROM buckets b
JOIN journal_floors f ON f.bucket = b.bucket
LEFT JOIN journal j ON j.bucket = b.bucket AND j.seq > f.floor AND j.seq <= b.journal_seq
WHERE b.bucket = $bucket
GROUP BY b.bucket, b.journal_seq, f.floor
HAVING count(j.seq) <> b.journal_seq - f.floor;

-- name: list_lost_keys
-- Clients of a bucket whose phone leads to nobody or to somebody else, or whose id names another bucket.
WITH mine AS MATERIALIZED (
  SELECT bucket, id, phone FROM clients WHERE bucket = $bucket
), keys AS MATERIALIZED (
  SELECT p.phone, p.bucket, p.client_id FROM mine c JOIN client_phones p ON p.phone = c.phone
)
SELECT c.id AS client_id, p.client_id AS found
FROM mine c
LEFT JOIN keys p ON p.phone = c.phone
WHERE (p.bucket, p.client_id) IS DISTINCT FROM (c.bucket, c.id) OR c.id % (SELECT count(*) FROM buckets) <> c.bucket
ORDER BY c.id
LIMIT $most;

-- fragment: rows
ledger WHERE bucket = $bucket AND mailing_id = $mailing_id

-- fragment: pending_rows
SELECT client_id FROM messages
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND status = {Status.PENDING}

-- fragment: named
-- How many open batches name a client.
SELECT i.client_id, count(*) AS batches
  FROM batches b CROSS JOIN LATERAL unnest(b.client_ids) AS i(client_id)
  WHERE b.bucket = $bucket AND b.mailing_id = $mailing_id AND NOT b.fresh
  GROUP BY i.client_id

-- name: check_open_work
-- Pending messages with a row that do not stand in exactly one open batch.
SELECT m.client_id, coalesce(n.batches, 0) AS batches
FROM ({pending_rows}) m
LEFT JOIN ({named}) n USING (client_id)
WHERE coalesce(n.batches, 0) <> 1
ORDER BY m.client_id
LIMIT $most;

-- name: check_places
-- Clients who have several messages in the mailing: rows, places in fresh batches, and in blocks.
SELECT client_id, count(*) AS places, count(*) FILTER (WHERE status = {Status.PENDING}) AS pending
FROM {rows}
GROUP BY client_id
HAVING count(*) > 1
ORDER BY client_id
LIMIT $most;

-- name: check_left_over
-- Open batches of a completed mailing, which nobody claims.
SELECT count(*) AS batches
FROM batches b JOIN mailings g ON g.id = b.mailing_id
WHERE b.bucket = $bucket AND b.mailing_id = $mailing_id AND g.state = {MailingState.COMPLETED}
HAVING count(*) > 0;

-- fragment: counted
SELECT status, CASE WHEN status IN ({Status.PENDING}, {Status.DELIVERED}) THEN 0 ELSE reason END AS reason, count(*) AS n
  FROM {rows}
  GROUP BY 1, 2

-- name: check_counters
-- Counters that differ from the messages.
SELECT status, reason, coalesce(k.n, 0) AS counter, coalesce(r.n, 0) AS messages
FROM (SELECT status, reason, n FROM mailing_counts WHERE bucket = $bucket AND mailing_id = $mailing_id) k
FULL JOIN ({counted}) r USING (status, reason)
WHERE coalesce(k.n, 0) <> coalesce(r.n, 0)
ORDER BY 1, 2;

-- name: check_attempts
-- Attempts that the counters do not have.
SELECT k.n AS counter, r.n AS messages
FROM (
  SELECT coalesce(sum(attempts), 0) AS n FROM mailing_counts WHERE bucket = $bucket AND mailing_id = $mailing_id
) k
CROSS JOIN (SELECT coalesce(sum(attempts), 0) AS n FROM {rows}) r
WHERE k.n <> r.n;

-- name: check_figures
-- Figures of the report that differ from the messages: attempts of settled ones, latencies and minutes of
-- delivered ones.
SELECT kind, key, coalesce(f.n, 0) AS figure, coalesce(r.n, 0) AS messages
FROM (
  SELECT kind, key, n FROM mailing_figures
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND kind < {Figure.FAILED}
) f
FULL JOIN (
  SELECT kind, key, count(*) AS n
  FROM (SELECT status, attempts, duration_ms, settled_at FROM {rows}) m
  CROSS JOIN LATERAL (VALUES
    ({Figure.ATTEMPTS}::smallint, attempts::bigint, status <> {Status.PENDING}),
    ({Figure.LATENCY}, latency_bin(duration_ms), status = {Status.DELIVERED}),
    ({Figure.DELIVERED}, floor(extract(epoch FROM settled_at) / 60)::bigint, status = {Status.DELIVERED})
  ) v (kind, key, counts)
  WHERE counts AND key IS NOT NULL
  GROUP BY 1, 2
) r USING (kind, key)
WHERE coalesce(f.n, 0) <> coalesce(r.n, 0)
ORDER BY 1, 2
LIMIT $most;

-- name: check_failures
-- Failures by minute that are fewer than the failed messages, or more though none was tried again: a
-- failure is an event and stays counted when the message is tried again.
SELECT f.n AS figure, m.n AS messages
FROM (
  SELECT coalesce(sum(n), 0) AS n FROM mailing_figures
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND kind = {Figure.FAILED}
) f
CROSS JOIN (SELECT count(*) AS n FROM {rows} AND status = {Status.FAILED}) m
WHERE f.n < m.n OR (
  f.n > m.n AND (SELECT floor FROM journal_floors WHERE bucket = $bucket) = 0 AND NOT EXISTS (
    SELECT 1 FROM journal WHERE bucket = $bucket AND mailing_id = $mailing_id AND receipts IS NULL
      AND {Status.PENDING} = ANY (statuses)
  )
);

-- name: check_feed
-- Settled messages that the change feed does not have settled, where nothing of it was removed so far.
-- An entry back to PENDING takes away one that settled the message.
SELECT m.n AS messages, j.n AS entries
FROM (SELECT count(*) AS n FROM {rows} AND status <> {Status.PENDING}) m
CROSS JOIN (
  SELECT coalesce(sum(
    CASE WHEN cardinality(statuses) > 1
        THEN cardinality(statuses) - 2 * cardinality(array_positions(statuses, {Status.PENDING}::smallint))
      WHEN statuses[1] = {Status.PENDING} THEN -cardinality(client_ids)
      ELSE cardinality(client_ids) END
  ), 0) AS n
  FROM journal WHERE bucket = $bucket AND mailing_id = $mailing_id AND receipts IS NULL
) j
WHERE m.n <> j.n AND (SELECT floor FROM journal_floors WHERE bucket = $bucket) = 0;

-- name: lock_repaired
-- Keeps retries and changes of the mailing away.
SELECT state, audience_mode FROM mailings WHERE id = $mailing_id FOR UPDATE;

-- name: lock_expansion
-- Keeps expansions of the mailing in the bucket away.
SELECT bucket FROM expansions WHERE bucket = $bucket AND mailing_id = $mailing_id FOR UPDATE;

-- name: lock_bucket
-- Keeps settlements and deletions in the bucket away, which all lock its row before they write.
SELECT bucket FROM buckets WHERE bucket = $bucket FOR UPDATE;

-- name: mend_counters
INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
SELECT $bucket, $mailing_id, status, reason, coalesce(r.n, 0)
FROM (SELECT status, reason, n FROM mailing_counts WHERE bucket = $bucket AND mailing_id = $mailing_id) c
FULL JOIN ({counted}) r USING (status, reason)
WHERE coalesce(c.n, 0) <> coalesce(r.n, 0)
ORDER BY status, reason
ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = excluded.n;

-- name: take_in_anew
-- Begins another pass over the clients of the bucket if the counter knows more pending messages than there are: some
-- stood in batches that are lost. Clients who still match get a message again.
UPDATE expansions e
SET last_client_id = -1, finished = false, reached = 9223372036854775807
WHERE e.bucket = $bucket AND e.mailing_id = $mailing_id
  AND (
    SELECT coalesce(sum(n), 0) FROM mailing_counts
    WHERE bucket = $bucket AND mailing_id = $mailing_id AND status = {Status.PENDING}
  ) > (SELECT count(*) FROM {rows} AND status = {Status.PENDING});

-- name: mend_open_work
-- Opens batches of $batch_size for pending messages that stand in none.
INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at)
SELECT $bucket, $mailing_id, nextval('batch_no'), client_ids, now()
FROM (
  SELECT array_agg(client_id ORDER BY client_id) AS client_ids
  FROM (
    SELECT client_id, (row_number() OVER (ORDER BY client_id) - 1) / $batch_size AS part
    FROM ({pending_rows}) m
    LEFT JOIN ({named}) n USING (client_id)
    WHERE n.batches IS NULL
  ) lost
  GROUP BY part
) parts;

-- name: drop_left_over
-- Removes the open batches in which nobody's message is pending any more.
DELETE FROM batches b
WHERE b.bucket = $bucket AND b.mailing_id = $mailing_id AND NOT b.fresh
  AND NOT EXISTS (SELECT 1 FROM ({pending_rows}) m WHERE m.client_id = ANY (b.client_ids));

-- name: has_work
-- Whether there are messages to send, or clients to take in.
SELECT EXISTS (SELECT 1 FROM batches WHERE bucket = $bucket AND mailing_id = $mailing_id)
  OR EXISTS (SELECT 1 FROM expansions WHERE bucket = $bucket AND mailing_id = $mailing_id AND NOT finished);
