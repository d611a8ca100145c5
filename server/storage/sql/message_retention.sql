-- Which mailings have kept their messages long enough, and what is written of them before they go.

-- name: list_expired
-- Mailings that have been over for longer than messages are kept: all of a partition together, or else those that are
-- $grace longer over. A label's rule, the first that fits, goes before $keep; infinity is for good. `part` numbers the
-- partitions.
WITH bounds AS (
  SELECT array_agg(DISTINCT e.id ORDER BY e.id) AS ends
  FROM ledger_partitions p CROSS JOIN LATERAL (VALUES (p.lower), (p.upper)) AS e (id)
), aged AS (
  SELECT g.id, g.updated_at, g.state, coalesce(width_bucket(g.id, b.ends), 0) AS part,
    extract(epoch FROM now() - g.updated_at)::float8 AS age, coalesce((
      SELECT r.keep
      FROM unnest($names::text[], $values::text[], $keeps::float8[]) WITH ORDINALITY AS r(name, value, keep, no)
      WHERE g.labels ->> r.name = r.value ORDER BY r.no LIMIT 1
    ), $keep::float8) AS keep
  FROM mailings g CROSS JOIN bounds b
  WHERE g.messages_removed_at IS NULL
), open AS MATERIALIZED (
  SELECT DISTINCT mailing_id FROM batches
), judged AS (
  SELECT a.*, a.age > a.keep AND a.state IN ({MailingState.COMPLETED}, {MailingState.CANCELLED})
    AND a.id NOT IN (SELECT mailing_id FROM open) AS expired
  FROM aged a
)
SELECT j.id, j.updated_at, j.part
FROM (SELECT *, bool_and(expired) OVER (PARTITION BY part) AS whole FROM judged) j
WHERE j.expired AND (j.whole OR j.age > j.keep * (1 + $grace::float8))
ORDER BY j.id;

-- name: hide_messages
-- From here on nobody sees the messages, and they follow. No row when the mailing was changed since it was judged.
UPDATE mailings SET messages_removed_at = now()
WHERE id = $mailing_id AND updated_at = $updated_at AND messages_removed_at IS NULL
  AND state IN ({MailingState.COMPLETED}, {MailingState.CANCELLED})
RETURNING id;

-- name: find_shown
SELECT id FROM mailings WHERE id = $mailing_id AND messages_removed_at IS NULL;

-- name: count_of
SELECT coalesce(sum(n), 0)::bigint FROM buckets b JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id = $mailing_id;

-- name: list_archived_buckets
SELECT bucket FROM buckets ORDER BY bucket;

-- name: archived_messages
-- The messages of a mailing in a bucket, for people: statuses and reasons by name.
SELECT l.mailing_id << 32 | l.client_id AS message_id, l.client_id, ($statuses::text[])[l.status] AS status,
  ($reasons::text[])[l.reason + 1] AS reason, l.attempts, l.created_at, l.due_at, l.settled_at, l.endpoint_status,
  l.endpoint_code, l.duration_ms, r.provider_id, ($receipts::text[])[nullif(r.receipt, 0)] AS receipt, r.code AS receipt_code,
  r.at AS receipt_at
FROM ledger l
LEFT JOIN receipts r ON r.bucket = l.bucket AND r.mailing_id = l.mailing_id AND r.client_id = l.client_id
WHERE l.bucket = $bucket::int AND l.mailing_id = $mailing_id::bigint;

-- name: archived_attempts
SELECT mailing_id << 32 | client_id AS message_id, client_id, number, at, endpoint, ($error_classes::text[])[error_class] AS error_class,
  endpoint_status, endpoint_code, duration_ms, response_excerpt
FROM attempts
WHERE bucket = $bucket::int AND mailing_id = $mailing_id::bigint;
