-- The journal, read and forgotten. Its entries never change, and an entry is visible at the
-- latest with its number in `buckets`, so a statement that reads both misses nothing between.

-- name: journal_epoch
SELECT epoch FROM journal_epochs ORDER BY created_at DESC, epoch LIMIT 1;

-- name: poll_journal
-- Where each bucket stands, and its entries behind the numbers in $1 (by bucket, from 0),
-- at most $2 of each. One snapshot: a bucket with fewer entries has no more up to journal_seq.
SELECT b.bucket, b.journal_seq, f.floor, j.seq, j.mailing_id, j.at, j.client_ids, j.statuses
FROM buckets b
JOIN journal_floors f ON f.bucket = b.bucket
LEFT JOIN LATERAL (
  SELECT seq, mailing_id, at, client_ids, statuses
  FROM journal
  WHERE bucket = b.bucket AND seq > ($1::bigint[])[b.bucket + 1]
  ORDER BY seq
  LIMIT $2
) j ON true
ORDER BY b.bucket, j.seq;

-- name: read_journal
-- At most $5 entries of one bucket behind $2 and up to $3, of the mailing $4 or (0) of all.
SELECT f.floor, b.journal_seq, j.seq, j.mailing_id, j.at, j.client_ids, j.statuses
FROM buckets b
JOIN journal_floors f ON f.bucket = b.bucket
LEFT JOIN LATERAL (
  SELECT seq, mailing_id, at, client_ids, statuses
  FROM journal
  WHERE bucket = b.bucket AND seq > $2 AND seq <= $3 AND ($4::bigint = 0 OR mailing_id = $4)
  ORDER BY seq
  LIMIT $5
) j ON true
WHERE b.bucket = $1
ORDER BY j.seq;

-- name: expired_buckets
-- The buckets whose oldest entry is older than $1: what an idle replica asks once in a while.
SELECT f.bucket
FROM journal_floors f
CROSS JOIN LATERAL (SELECT at FROM journal WHERE bucket = f.bucket AND seq > f.floor ORDER BY seq LIMIT 1) o
WHERE o.at < now() - $1::interval
ORDER BY f.bucket;

-- name: expired_journal
-- Up to which number the journal of a bucket is older than $2, looking at its $3 oldest
-- entries only; null when it is not, no row while another replica is at this bucket.
WITH held AS (
  SELECT bucket, floor FROM journal_floors WHERE bucket = $1 FOR UPDATE SKIP LOCKED
)
SELECT h.floor, (
  SELECT coalesce(min(o.seq) FILTER (WHERE o.at >= now() - $2::interval) - 1, max(o.seq))
  FROM (SELECT seq, at FROM journal WHERE bucket = $1 AND seq > h.floor ORDER BY seq LIMIT $3) o
  HAVING min(o.at) < now() - $2::interval
) AS last
FROM held h;

-- name: forget_journal
DELETE FROM journal WHERE bucket = $1 AND seq > $2 AND seq <= $3;

-- name: raise_floor
UPDATE journal_floors SET floor = $2 WHERE bucket = $1 AND floor < $2;
