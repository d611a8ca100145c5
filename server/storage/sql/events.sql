-- The log, read and forgotten. Its entries never change, and an entry is visible at the
-- latest with its number in `log_seqs`, so a statement that reads both misses nothing between.

-- name: log_ends
-- Where each bucket stands, and what is gone.
SELECT s.seq AS head, f.floor FROM log_seqs s JOIN log_floors f ON f.bucket = s.bucket ORDER BY s.bucket;

-- fragment: bounds
-- The buckets, each with its position of $1 (by bucket, from 0), and the time of the last of
-- the $3 entries behind it.
FROM log_seqs s
JOIN log_floors f ON f.bucket = s.bucket
CROSS JOIN LATERAL (SELECT ($1::bigint[])[s.bucket + 1] AS after) p
LEFT JOIN LATERAL (
  SELECT at FROM log WHERE bucket = s.bucket AND no > p.after AND no <= p.after + $3 ORDER BY no DESC LIMIT 1
) r ON true

-- fragment: chosen
-- Of these $3 entries at most $2 that are asked for.
SELECT no, at, level, event, text, mailing_id, message_id, client_id, principal, details
FROM log
WHERE bucket = s.bucket AND no > p.after AND no <= p.after + $3
  AND level >= $4 AND ($5::bigint = 0 OR message_id = $5) AND ($6::bigint = 0 OR client_id = $6)

-- name: read_log
SELECT s.bucket, s.seq AS head, f.floor, r.at AS reached_at, l.*
{bounds}
LEFT JOIN LATERAL (
  {chosen}
  ORDER BY no LIMIT $2
) l ON true
ORDER BY s.bucket, l.no;

-- name: read_log_of_mailing
-- The same of one mailing, which has an index.
SELECT s.bucket, s.seq AS head, f.floor, r.at AS reached_at, l.*
{bounds}
LEFT JOIN LATERAL (
  {chosen}
  AND mailing_id = $7
  ORDER BY no LIMIT $2
) l ON true
ORDER BY s.bucket, l.no;

-- name: expired_log_buckets
-- The buckets whose oldest entry is older than $1: what an idle replica asks once in a while.
SELECT f.bucket
FROM log_floors f
CROSS JOIN LATERAL (SELECT at FROM log WHERE bucket = f.bucket AND no > f.floor ORDER BY no LIMIT 1) o
WHERE o.at < now() - $1::interval
ORDER BY f.bucket;

-- name: expired_log
-- Up to which number the log of a bucket is older than $2, looking at its $3 oldest entries
-- only; null when it is not, no row while another replica is at this bucket.
WITH held AS (
  SELECT bucket, floor FROM log_floors WHERE bucket = $1 FOR UPDATE SKIP LOCKED
)
SELECT h.floor, (
  SELECT coalesce(min(o.no) FILTER (WHERE o.at >= now() - $2::interval) - 1, max(o.no))
  FROM (SELECT no, at FROM log WHERE bucket = $1 AND no > h.floor ORDER BY no LIMIT $3) o
  HAVING min(o.at) < now() - $2::interval
) AS last
FROM held h;

-- name: forget_log
DELETE FROM log WHERE bucket = $1 AND no > $2 AND no <= $3;

-- name: raise_log_floor
UPDATE log_floors SET floor = $2 WHERE bucket = $1 AND floor < $2;
