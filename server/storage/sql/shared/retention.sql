-- Entries that are numbered by bucket, removed by age. A file that includes this one has fragments
-- with the names of the table of `entries`, its column with the `number`, and the table of `floors`:
-- the last numbers removed. Removing locks nothing that writing needs.

-- name: expired_buckets
-- The buckets whose oldest entry is older than $older_than, which every replica asks now and then.
SELECT f.bucket
FROM {floors} f
CROSS JOIN LATERAL (SELECT at FROM {entries} WHERE bucket = f.bucket AND {number} > f.floor ORDER BY {number} LIMIT 1) o
WHERE o.at < now() - $older_than::interval
ORDER BY f.bucket;

-- name: expired_entries
-- Up to which number the entries of a bucket are older than $older_than, among its $most oldest ones;
-- null when none is, no row while another replica removes entries of this bucket.
WITH held AS (
  SELECT bucket, floor FROM {floors} WHERE bucket = $bucket FOR UPDATE SKIP LOCKED
)
SELECT h.floor, (
  SELECT coalesce(min(o.no) FILTER (WHERE o.at >= now() - $older_than::interval) - 1, max(o.no))
  FROM (
    SELECT {number} AS no, at FROM {entries} WHERE bucket = $bucket AND {number} > h.floor ORDER BY {number} LIMIT $most
  ) o
  HAVING min(o.at) < now() - $older_than::interval
) AS last
FROM held h;

-- name: remove_entries
DELETE FROM {entries} WHERE bucket = $bucket AND {number} > $after AND {number} <= $until;

-- name: raise_floor
UPDATE {floors} SET floor = $floor WHERE bucket = $bucket AND floor < $floor;
