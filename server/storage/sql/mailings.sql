-- Mailings with their progress. The progress is summed from mailing_counts, some 13 rows per
-- bucket at the most; messages are never counted.

-- name: next_mailing_id
SELECT nextval('mailing_id');

-- name: insert_mailing
-- Postgres decides the time: whether the start has come, and whether the end has passed, in
-- which case no row is returned.
INSERT INTO mailings (
  id, title, text, filter, starts_at, ends_at, state, audience_mode, semantics, priority, max_rate, endpoint,
  max_attempts, initial_backoff, max_backoff, labels, important
)
SELECT $1, $2, $3, $4, coalesce($5::timestamptz, now()), $6::timestamptz,
  CASE WHEN coalesce($5::timestamptz, now()) <= now() THEN 2 ELSE 1 END, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16
WHERE $6::timestamptz IS NULL OR $6::timestamptz > now()
RETURNING state;

-- name: begin_expansion
-- What a mailing that runs needs; one that is scheduled gets it when it starts.
INSERT INTO expansions (bucket, mailing_id, change_seq) SELECT bucket, $1, seq FROM client_change_seqs;

-- name: get_mailings
-- OFFSET 0 keeps the subqueries apart: bucket by bucket, by the key, whatever the planner believes
-- of the tables.
SELECT g.*, p.*, x.expanded, now() AS read_at
FROM mailings g
CROSS JOIN LATERAL (
  SELECT
    coalesce(sum(n), 0)::bigint AS total,
    coalesce(sum(n) FILTER (WHERE status = 1), 0)::bigint AS pending,
    coalesce(sum(n) FILTER (WHERE status = 2), 0)::bigint AS delivered,
    coalesce(sum(n) FILTER (WHERE status = 3), 0)::bigint AS failed,
    coalesce(sum(n) FILTER (WHERE status = 4), 0)::bigint AS expired,
    coalesce(sum(n) FILTER (WHERE status = 5), 0)::bigint AS cancelled,
    coalesce(sum(n) FILTER (WHERE status = 6), 0)::bigint AS skipped,
    coalesce(sum(n) FILTER (WHERE status = 7), 0)::bigint AS unknown,
    coalesce(sum(k.attempts), 0)::bigint AS attempts,
    min(first_at) FILTER (WHERE status = 2 AND n > 0) AS first_delivered_at,
    max(last_at) FILTER (WHERE status = 2 AND n > 0) AS last_delivered_at,
    -- Over the last five seconds: the present slot and the share of the one before it that lies in
    -- them; of a mailing that began later, over the time since.
    (coalesce(sum(
      CASE rate_slot(now()) - slot
        WHEN 0 THEN slot_n + before_n * (1 - rate_slot_share(now()))
        WHEN 1 THEN slot_n * (1 - rate_slot_share(now()))
        ELSE 0
      END
    ) FILTER (WHERE status = 2), 0)
      / greatest(0.2, least(5, extract(epoch FROM now() - min(first_at) FILTER (WHERE status = 2)))))::float8 AS rate
  FROM buckets b
  CROSS JOIN LATERAL (SELECT * FROM mailing_counts WHERE bucket = b.bucket AND mailing_id = g.id OFFSET 0) k
) p
CROSS JOIN LATERAL (
  SELECT coalesce(bool_and(e.finished), false) AS expanded
  FROM buckets b
  CROSS JOIN LATERAL (SELECT finished FROM expansions WHERE bucket = b.bucket AND mailing_id = g.id OFFSET 0) e
) x
WHERE g.id = ANY ($1::bigint[])
ORDER BY g.id DESC;

-- name: list_mailing_ids
SELECT id
FROM mailings
WHERE id < $1 AND ($3::smallint[] IS NULL OR state = ANY ($3)) AND ($4::jsonb IS NULL OR labels @> $4)
ORDER BY id DESC
LIMIT $2;

-- name: lock_mailing
SELECT *, now() AS read_at FROM mailings WHERE id = $1 FOR UPDATE;

-- name: has_begun
-- Whether a mailing ran before: its expansion stays.
SELECT EXISTS (SELECT FROM buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = $1);

-- name: update_mailing
-- Postgres decides the time: a running mailing whose start lies ahead from now on is stopped
-- until then. Rechecks of another audience begin when it is expanded.
UPDATE mailings
SET title = $2, text = $3, filter = $4, starts_at = coalesce($5::timestamptz, now()), ends_at = $6,
  audience_mode = $7, semantics = $8, priority = $9, max_rate = $10, endpoint = $11, max_attempts = $12,
  initial_backoff = $13, max_backoff = $14, labels = $15, important = $16, version = version + 1, updated_at = now(),
  state = CASE WHEN state = 2 AND $5::timestamptz > now() THEN 1 ELSE state END,
  recheck_at = CASE WHEN filter = $4 THEN recheck_at ELSE 'infinity' END
WHERE id = $1;

-- name: move_mailing
-- The only way of a mailing's state by request: from one of $3 to $2.
UPDATE mailings SET state = $2, version = version + 1, updated_at = now()
WHERE id = $1 AND state = ANY ($3::smallint[])
RETURNING state;

-- name: find_state
SELECT state FROM mailings WHERE id = $1;

-- name: wake_dispatchers
SELECT pg_notify('mailing', '');
