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
SET poll_min = $poll_min, poll_max = $poll_max, recheck_min = $recheck_min, recheck_max = $recheck_max,
  max_concurrency = $max_concurrency, version = version + 1, updated_at = now();

-- name: hurry_rechecks
-- Brings looks at mailings forward that were put off for longer than is allowed now.
UPDATE mailings SET recheck_at = now() + $longest::interval, recheck_interval = $longest::interval
WHERE state = {MailingState.RUNNING} AND recheck_at > now() + $longest::interval AND recheck_at < 'infinity';

-- name: set_paused
-- No row when it is so already.
UPDATE dispatch_settings SET paused = $paused, version = version + 1, updated_at = now()
WHERE paused <> $paused
RETURNING version;

-- name: hint_dispatchers
SELECT pg_notify('mailing', '');

-- name: beat
-- Says how a replica does and until when it counts as alive, and answers with the settings.
-- Whoever has been silent for a minute is swept away, but never by itself: which of both would
-- hold, when one statement removes and writes a row, is not defined.
WITH swept AS (
  DELETE FROM replicas WHERE id <> $replica_id AND beats_until < now() - interval '1 min'
), beat AS (
  INSERT INTO replicas (id, host, pid, started_at, beats_until, status)
  VALUES ($replica_id, $host, $pid, now() - $age::interval, now() + $alive_for::interval, $status::jsonb)
  ON CONFLICT (id) DO UPDATE SET beat_at = now(), beats_until = excluded.beats_until, status = excluded.status
)
SELECT version, poll_min, poll_max, recheck_min, recheck_max, max_concurrency FROM dispatch_settings;

-- name: leave
DELETE FROM replicas WHERE id = $replica_id;
