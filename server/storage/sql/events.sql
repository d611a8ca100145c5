-- The event log, read and removed. Its entries never change, and an entry is visible at the
-- latest with its number in `log_seqs`, so a statement that reads both misses nothing between.
-- include: retention
-- include: timeline

-- fragment: entries
log

-- fragment: number
no

-- fragment: floors
log_floors

-- name: log_ends
-- The last number of each bucket, and the last one removed.
SELECT {timeline} AS timeline, s.seq AS head, f.floor FROM log_seqs s JOIN log_floors f ON f.bucket = s.bucket ORDER BY s.bucket;

-- fragment: bounds
-- The buckets, each with its position of $positions (by bucket, from 0), and the time of the last of
-- the $span entries behind it.
FROM log_seqs s
JOIN log_floors f ON f.bucket = s.bucket
CROSS JOIN LATERAL (SELECT ($positions::bigint[])[s.bucket + 1] AS after) p
LEFT JOIN LATERAL (
  SELECT at FROM log WHERE bucket = s.bucket AND no > p.after AND no <= p.after + $span ORDER BY no DESC LIMIT 1
) r ON true

-- fragment: selected
-- At most $most matching ones of these $span entries.
SELECT no, at, level, event, text, mailing_id, message_id, client_id, principal, details
FROM log
WHERE bucket = s.bucket AND no > p.after AND no <= p.after + $span
  AND level >= $level AND ($message_id::bigint = 0 OR message_id = $message_id)
  AND ($client_id::bigint = 0 OR client_id = $client_id)

-- name: read_log
SELECT s.bucket, s.seq AS head, f.floor, r.at AS reached_at, l.*
{bounds}
LEFT JOIN LATERAL (
  {selected}
  ORDER BY no LIMIT $most
) l ON true
ORDER BY s.bucket, l.no;

-- name: read_log_of_mailing
-- The same for one mailing, which has an index.
SELECT s.bucket, s.seq AS head, f.floor, r.at AS reached_at, l.*
{bounds}
LEFT JOIN LATERAL (
  {selected}
  AND mailing_id = $mailing_id
  ORDER BY no LIMIT $most
) l ON true
ORDER BY s.bucket, l.no;

-- name: record_log
-- Writes events of one bucket, in their order, in the name of $principal. This takes the last lock of
-- its transaction: nothing that others wait for may be locked after it.
WITH tick AS (
  UPDATE log_seqs SET seq = seq + cardinality($levels::smallint[]) WHERE bucket = $bucket RETURNING seq
)
INSERT INTO log (bucket, no, level, event, text, mailing_id, message_id, client_id, details, principal)
SELECT $bucket, t.seq - cardinality($levels::smallint[]) + e.ordinality, e.level, e.event, e.text, e.mailing_id,
  CASE WHEN e.mailing_id > 0 AND e.client_id > 0 THEN e.mailing_id << 32 | e.client_id ELSE 0 END,
  e.client_id, e.details::jsonb, $principal
FROM tick t
CROSS JOIN unnest(
  $levels::smallint[], $names::text[], $texts::text[], $mailing_ids::bigint[], $client_ids::bigint[], $details::text[]
) WITH ORDINALITY AS e(level, event, text, mailing_id, client_id, details, ordinality);

-- name: note_expanded
-- Marks mailings whose audience is complete, and returns each of them once.
WITH whole AS MATERIALIZED (
  SELECT m.id
  FROM mailings m CROSS JOIN buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = m.id
  WHERE m.expanded_at IS NULL AND m.state IN ({MailingState.RUNNING}, {MailingState.PAUSED}, {MailingState.COMPLETED})
  GROUP BY m.id
  HAVING bool_and(e.finished)
)
UPDATE mailings m SET expanded_at = now()
WHERE m.expanded_at IS NULL AND m.id IN (SELECT id FROM whole)
RETURNING m.id;

-- name: totals
-- The number of messages of mailings, by status.
SELECT k.mailing_id, k.status, sum(k.n)::bigint AS n
FROM buckets b JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id = ANY($ids::bigint[])
GROUP BY 1, 2 HAVING sum(k.n) > 0
ORDER BY 1, 2;
