-- Replicas and settings, as operators see and steer them.

-- name: list_replicas
SELECT id, host, pid, started_at, status,
  (SELECT coalesce(jsonb_object_agg(name, breaker), '{}') FROM endpoints) AS breakers
FROM replicas WHERE beats_until > now()
ORDER BY started_at, id;

-- name: get_steering
SELECT * FROM dispatch_settings;

-- name: lock_steering
SELECT * FROM dispatch_settings FOR UPDATE;

-- name: set_tuning
UPDATE dispatch_settings
SET poll_min = $1, poll_max = $2, recheck_min = $3, recheck_max = $4, max_concurrency = $5,
  version = version + 1, updated_at = now();

-- name: hurry_rechecks
-- Brings looks at mailings forward that were put off for longer than is allowed now.
UPDATE mailings SET recheck_at = now() + $1::interval, recheck_interval = $1::interval
WHERE state = 2 AND recheck_at > now() + $1::interval AND recheck_at < 'infinity';

-- name: set_paused
-- No row when it is so already.
UPDATE dispatch_settings SET paused = $1, version = version + 1, updated_at = now()
WHERE paused <> $1
RETURNING version;

-- name: hint_dispatchers
SELECT pg_notify('mailing', '');
