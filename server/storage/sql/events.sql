-- The event log, read and removed. Its entries never change, and an entry is visible at the
-- latest with its number in `log_seqs`, so a statement that reads both misses nothing between.
-- include: retention

-- fragment: entries
log

-- fragment: number
no

-- fragment: floors
log_floors

-- name: log_ends
-- The last number of each bucket, and the last one removed.
SELECT s.seq AS head, f.floor FROM log_seqs s JOIN log_floors f ON f.bucket = s.bucket ORDER BY s.bucket;

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
-- The same of one mailing, which has an index.
SELECT s.bucket, s.seq AS head, f.floor, r.at AS reached_at, l.*
{bounds}
LEFT JOIN LATERAL (
  {selected}
  AND mailing_id = $mailing_id
  ORDER BY no LIMIT $most
) l ON true
ORDER BY s.bucket, l.no;
