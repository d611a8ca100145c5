-- Reports and the backlog, from counters only: a few hundred rows for any number of messages. The
-- timeline has a row per minute and bucket, so only its last part is read. OFFSET 0 keeps the planner
-- from merging the subqueries: they read bucket by bucket, by the key. A generic plan would read the
-- whole table where a few mailings have most of it.

-- name: report_counts
-- Messages by status and reason, without rows that RetryMailing left at 0.
SELECT k.status, k.reason, sum(k.n)::bigint AS n, min(k.first_at) AS first_at, max(k.last_at) AS last_at
FROM buckets b
CROSS JOIN LATERAL (
  SELECT * FROM mailing_counts WHERE bucket = b.bucket AND mailing_id = $mailing_id AND n > 0 OFFSET 0
) k
GROUP BY k.status, k.reason;

-- name: report_histograms
-- Settled messages by attempts, delivered ones by latency_bin.
SELECT f.kind, f.key, sum(f.n)::bigint AS n
FROM buckets b
CROSS JOIN LATERAL (
  SELECT kind, key, n FROM mailing_figures
  WHERE bucket = b.bucket AND mailing_id = $mailing_id AND kind IN ({Figure.ATTEMPTS}, {Figure.LATENCY}) OFFSET 0
) f
GROUP BY f.kind, f.key
HAVING sum(f.n) > 0
ORDER BY f.kind, f.key;

-- name: report_course
-- Deliveries and failures over the last $longest minutes of the timeline: by the minute, or in steps
-- of $coarse_step minutes where that would be more than $longest / $coarse_step rows.
WITH latest AS MATERIALIZED (
  SELECT max(greatest(d.key, f.key)) AS key
  FROM buckets b
  LEFT JOIN LATERAL (
    SELECT key FROM mailing_figures
    WHERE bucket = b.bucket AND mailing_id = $mailing_id AND kind = {Figure.DELIVERED} ORDER BY key DESC LIMIT 1
  ) d ON true
  LEFT JOIN LATERAL (
    SELECT key FROM mailing_figures
    WHERE bucket = b.bucket AND mailing_id = $mailing_id AND kind = {Figure.FAILED} ORDER BY key DESC LIMIT 1
  ) f ON true
), minutes AS MATERIALIZED (
  SELECT f.key,
    coalesce(sum(f.n) FILTER (WHERE f.kind = {Figure.DELIVERED}), 0)::bigint AS delivered,
    coalesce(sum(f.n) FILTER (WHERE f.kind = {Figure.FAILED}), 0)::bigint AS failed
  FROM buckets b
  CROSS JOIN LATERAL (
    SELECT kind, key, n FROM mailing_figures
    WHERE bucket = b.bucket AND mailing_id = $mailing_id AND kind IN ({Figure.DELIVERED}, {Figure.FAILED})
      -- Whole steps, so that there are no more than $longest / $coarse_step.
      AND key >= (SELECT key / $coarse_step::bigint * $coarse_step + $coarse_step - $longest::bigint FROM latest)
    OFFSET 0
  ) f
  GROUP BY f.key
), chosen AS MATERIALIZED (
  SELECT CASE WHEN count(*) <= $longest / $coarse_step THEN 1 ELSE $coarse_step END AS step FROM minutes
)
SELECT c.step, m.key / c.step * c.step AS minute,
  sum(m.delivered)::bigint AS delivered, sum(m.failed)::bigint AS failed
FROM minutes m CROSS JOIN chosen c
GROUP BY c.step, m.key / c.step
ORDER BY minute;

-- name: open_work
-- Open batches by endpoint, and for how long the oldest one has been waiting that could be sent. The
-- batches of mailings with a rate limit wait on purpose.
SELECT coalesce(nullif(m.endpoint, ''), 'default') AS endpoint, count(*) AS batches,
  count(*) FILTER (WHERE b.lease_until > now()) AS leased,
  coalesce(extract(epoch FROM now() - min(b.due_at) FILTER (
    WHERE b.due_at <= now() AND b.lease_until <= now() AND m.max_rate = 0 AND m.max_per_day = 0
      AND (m.state IN ({MailingState.RUNNING}, {MailingState.CANCELLED}) OR m.ends_at <= now())
  )), 0)::float8 AS lag
FROM batches b JOIN mailings m ON m.id = b.mailing_id
GROUP BY 1;

-- name: backlog
-- Pending messages of live mailings, by endpoint. Reads the counters by their key.
SELECT coalesce(nullif(m.endpoint, ''), 'default') AS endpoint, sum(k.n)::bigint AS messages
FROM mailings m CROSS JOIN buckets b
JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id = m.id AND k.status = {Status.PENDING}
WHERE m.state IN ({MailingState.RUNNING}, {MailingState.PAUSED})
GROUP BY 1;

-- name: live_mailings
-- The number of scheduled, running and paused mailings, how long the oldest recheck is overdue, and
-- whether all sending is stopped.
SELECT count(*) FILTER (WHERE state = {MailingState.SCHEDULED}) AS scheduled,
  count(*) FILTER (WHERE state = {MailingState.RUNNING}) AS running,
  count(*) FILTER (WHERE state = {MailingState.PAUSED}) AS paused,
  coalesce(extract(epoch FROM now() - min(recheck_at) FILTER (
    WHERE state = {MailingState.RUNNING} AND recheck_at <= now()
  )), 0)::float8 AS recheck_lag,
  (SELECT stopped FROM dispatch_settings) AS stopped
FROM mailings WHERE state IN ({MailingState.SCHEDULED}, {MailingState.RUNNING}, {MailingState.PAUSED});
