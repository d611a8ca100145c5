-- Entries that are numbered by bucket, removed by age. A file that includes this one says what the
-- table of the `entries` is called, its column with the `number`, and the table of the `floors`: the
-- last numbers removed. Removing locks nothing that writing needs.

-- name: expired_buckets
-- The buckets whose oldest entry is older than $older_than: what an idle replica asks once in a while.
SELECT f.bucket
FROM {floors} f
CROSS JOIN LATERAL (SELECT at FROM {entries} WHERE bucket = f.bucket AND {number} > f.floor ORDER BY {number} LIMIT 1) o
WHERE o.at < now() - $older_than::interval
ORDER BY f.bucket;

-- name: expired_entries
-- Up to which number the entries of a bucket are older than $older_than, looking at its $most oldest
-- ones only; null when none is, no row while another replica is at this bucket.
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
