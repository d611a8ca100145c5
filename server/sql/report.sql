-- What a report is made of: counters only, a few hundred rows for any number of messages. Only
-- the course grows, by a row per minute and bucket.

-- name: report_counts
-- Messages by status and reason. A row may be left at 0 after RetryMailing: it does not count.
SELECT k.status, k.reason, sum(k.n)::bigint AS n, min(k.first_at) AS first_at, max(k.last_at) AS last_at
FROM buckets b
JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id = $1
WHERE k.n > 0
GROUP BY k.status, k.reason;

-- name: report_histograms
-- Settled messages by attempts (kind 1), delivered ones by latency_bin (kind 2).
SELECT f.kind, f.key, sum(f.n)::bigint AS n
FROM buckets b
JOIN mailing_figures f ON f.bucket = b.bucket AND f.mailing_id = $1 AND f.kind IN (1, 2)
GROUP BY f.kind, f.key
HAVING sum(f.n) > 0
ORDER BY f.kind, f.key;

-- name: report_course
-- Deliveries (kind 3) and failures (kind 4) over time, in the finest of the steps $2 (minutes,
-- ascending) that makes at most $3 rows, else in the coarsest.
WITH minutes AS MATERIALIZED (
  SELECT f.key, sum(f.n) FILTER (WHERE f.kind = 3) AS delivered, sum(f.n) FILTER (WHERE f.kind = 4) AS failed
  FROM buckets b
  JOIN mailing_figures f ON f.bucket = b.bucket AND f.mailing_id = $1 AND f.kind IN (3, 4)
  GROUP BY f.key
), chosen AS MATERIALIZED (
  SELECT coalesce(min(s.step) FILTER (WHERE s.entries <= $3), max(s.step)) AS step
  FROM (
    SELECT step, (SELECT count(DISTINCT key / step) FROM minutes) AS entries FROM unnest($2::bigint[]) AS step
  ) s
)
SELECT c.step, m.key / c.step * c.step AS minute,
  coalesce(sum(m.delivered), 0)::bigint AS delivered, coalesce(sum(m.failed), 0)::bigint AS failed
FROM minutes m CROSS JOIN chosen c
GROUP BY c.step, m.key / c.step
ORDER BY minute;
