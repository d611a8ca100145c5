-- name: open_work
-- What is open, by endpoint, and how long the oldest batch waits that could be sent: those of
-- mailings with a rate wait because they are told to.
SELECT coalesce(nullif(m.endpoint, ''), 'default') AS endpoint, count(*) AS batches,
  count(*) FILTER (WHERE b.lease_until > now()) AS leased,
  coalesce(extract(epoch FROM now() - min(b.due_at) FILTER (
    WHERE b.due_at <= now() AND b.lease_until <= now() AND m.max_rate = 0
      AND (m.state IN (2, 5) OR m.ends_at <= now())
  )), 0)::float8 AS lag
FROM batches b JOIN mailings m ON m.id = b.mailing_id
GROUP BY 1;

-- name: backlog
-- Pending messages of mailings that are not over, by endpoint. Asks the counters by their key.
SELECT coalesce(nullif(m.endpoint, ''), 'default') AS endpoint, sum(k.n)::bigint AS messages
FROM mailings m CROSS JOIN buckets b
JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id = m.id AND k.status = 1
WHERE m.state IN (2, 3)
GROUP BY 1;

-- name: live_mailings
-- How many mailings are scheduled, running and paused, how long the oldest recheck is overdue, and
-- whether all dispatching is stopped.
SELECT count(*) FILTER (WHERE state = 1) AS scheduled, count(*) FILTER (WHERE state = 2) AS running,
  count(*) FILTER (WHERE state = 3) AS paused,
  coalesce(extract(epoch FROM now() - min(recheck_at) FILTER (WHERE state = 2 AND recheck_at <= now())), 0)::float8
    AS recheck_lag,
  (SELECT paused FROM dispatch_settings) AS stopped
FROM mailings WHERE state IN (1, 2, 3);
