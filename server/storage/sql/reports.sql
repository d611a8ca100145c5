-- What a report is made of: counters only, a few hundred rows for any number of messages. The
-- course has a row per minute and bucket, so no more than its last part is read. OFFSET 0 keeps the
-- subqueries apart: bucket by bucket, by the key. A plan for any mailing would read the whole table
-- where a few mailings have most of it.

-- name: report_counts
-- Messages by status and reason. A row may be left at 0 after RetryMailing: it does not count.
SELECT k.status, k.reason, sum(k.n)::bigint AS n, min(k.first_at) AS first_at, max(k.last_at) AS last_at
FROM buckets b
CROSS JOIN LATERAL (
  SELECT * FROM mailing_counts WHERE bucket = b.bucket AND mailing_id = $1 AND n > 0 OFFSET 0
) k
GROUP BY k.status, k.reason;

-- name: report_histograms
-- Settled messages by attempts (kind 1), delivered ones by latency_bin (kind 2).
SELECT f.kind, f.key, sum(f.n)::bigint AS n
FROM buckets b
CROSS JOIN LATERAL (
  SELECT kind, key, n FROM mailing_figures
  WHERE bucket = b.bucket AND mailing_id = $1 AND kind IN (1, 2) OFFSET 0
) f
GROUP BY f.kind, f.key
HAVING sum(f.n) > 0
ORDER BY f.kind, f.key;

-- name: report_course
-- Deliveries (kind 3) and failures (kind 4) over time, for the last $3 minutes of the course: by the
-- minute, or in steps of $2 minutes where that would be more than $3 / $2 rows.
WITH latest AS MATERIALIZED (
  SELECT max(l.key) AS key
  FROM buckets b
  CROSS JOIN (VALUES (3::smallint), (4::smallint)) AS k (kind)
  CROSS JOIN LATERAL (
    SELECT key FROM mailing_figures
    WHERE bucket = b.bucket AND mailing_id = $1 AND kind = k.kind ORDER BY key DESC LIMIT 1
  ) l
), minutes AS MATERIALIZED (
  SELECT f.key,
    coalesce(sum(f.n) FILTER (WHERE f.kind = 3), 0)::bigint AS delivered,
    coalesce(sum(f.n) FILTER (WHERE f.kind = 4), 0)::bigint AS failed
  FROM buckets b
  CROSS JOIN LATERAL (
    SELECT kind, key, n FROM mailing_figures
    WHERE bucket = b.bucket AND mailing_id = $1 AND kind IN (3, 4)
      -- Whole steps, so that there are no more than fit.
      AND key >= (SELECT key / $2::bigint * $2 + $2 - $3::bigint FROM latest)
    OFFSET 0
  ) f
  GROUP BY f.key
), chosen AS MATERIALIZED (
  SELECT CASE WHEN count(*) <= $3 / $2 THEN 1 ELSE $2 END AS step FROM minutes
)
SELECT c.step, m.key / c.step * c.step AS minute,
  sum(m.delivered)::bigint AS delivered, sum(m.failed)::bigint AS failed
FROM minutes m CROSS JOIN chosen c
GROUP BY c.step, m.key / c.step
ORDER BY minute;
