-- The log, read and forgotten. Its entries never change, and an entry is visible at the
-- latest with its number in `log_seqs`, so a statement that reads both misses nothing between.

-- name: log_ends
-- Where each bucket stands, and what is gone.
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

-- fragment: chosen
-- Of these $span entries at most $most that are asked for.
SELECT no, at, level, event, text, mailing_id, message_id, client_id, principal, details
FROM log
WHERE bucket = s.bucket AND no > p.after AND no <= p.after + $span
  AND level >= $level AND ($message_id::bigint = 0 OR message_id = $message_id)
  AND ($client_id::bigint = 0 OR client_id = $client_id)

-- name: read_log
SELECT s.bucket, s.seq AS head, f.floor, r.at AS reached_at, l.*
{bounds}
LEFT JOIN LATERAL (
  {chosen}
  ORDER BY no LIMIT $most
) l ON true
ORDER BY s.bucket, l.no;

-- name: read_log_of_mailing
-- The same of one mailing, which has an index.
SELECT s.bucket, s.seq AS head, f.floor, r.at AS reached_at, l.*
{bounds}
LEFT JOIN LATERAL (
  {chosen}
  AND mailing_id = $mailing_id
  ORDER BY no LIMIT $most
) l ON true
ORDER BY s.bucket, l.no;

-- name: expired_log_buckets
-- The buckets whose oldest entry is older than $older_than: what an idle replica asks once in a while.
SELECT f.bucket
FROM log_floors f
CROSS JOIN LATERAL (SELECT at FROM log WHERE bucket = f.bucket AND no > f.floor ORDER BY no LIMIT 1) o
WHERE o.at < now() - $older_than::interval
ORDER BY f.bucket;

-- name: expired_log
-- Up to which number the log of a bucket is older than $older_than, looking at its $most oldest entries
-- only; null when it is not, no row while another replica is at this bucket.
WITH held AS (
  SELECT bucket, floor FROM log_floors WHERE bucket = $bucket FOR UPDATE SKIP LOCKED
)
SELECT h.floor, (
  SELECT coalesce(min(o.no) FILTER (WHERE o.at >= now() - $older_than::interval) - 1, max(o.no))
  FROM (SELECT no, at FROM log WHERE bucket = $bucket AND no > h.floor ORDER BY no LIMIT $most) o
  HAVING min(o.at) < now() - $older_than::interval
) AS last
FROM held h;

-- name: forget_log
DELETE FROM log WHERE bucket = $bucket AND no > $after AND no <= $until;

-- name: raise_log_floor
UPDATE log_floors SET floor = $floor WHERE bucket = $bucket AND floor < $floor;
