-- Replicas, their heartbeats, and the runtime settings of all of them.

-- name: database_versions
SELECT (SELECT max(version)::int FROM schema_migrations) AS schema_version, current_setting('server_version') AS server;

-- name: list_replicas
SELECT id, host, pid, started_at, status,
  (SELECT coalesce(jsonb_object_agg(name, breaker), '{}') FROM endpoints) AS breakers
FROM replicas WHERE beats_until > now()
ORDER BY started_at, id;

-- name: get_runtime_settings
SELECT * FROM dispatch_settings;

-- name: lock_runtime_settings
SELECT * FROM dispatch_settings FOR UPDATE;

-- name: set_overrides
UPDATE dispatch_settings
SET poll_min = $poll_min, poll_max = $poll_max, recheck_min = $recheck_min, recheck_max = $recheck_max,
  max_concurrency = $max_concurrency, version = version + 1, updated_at = now();

-- name: expedite_rechecks
-- Brings rechecks forward that are further away than is allowed now.
UPDATE mailings SET recheck_at = now() + $longest::interval, recheck_interval = $longest::interval
WHERE state = {MailingState.RUNNING} AND recheck_at > now() + $longest::interval AND recheck_at < 'infinity';

-- name: set_stopped
-- Returns no row when nothing changes. `paused` is true for good: it stops older releases.
UPDATE dispatch_settings SET stopped = $stopped, version = version + 1, updated_at = now()
WHERE stopped <> $stopped
RETURNING version;

-- name: beat
-- Records a replica's status and until when it counts as alive.
-- Other replicas that have been silent for a minute are removed. Never the replica itself: the result
-- of one statement that deletes and writes the same row is undefined.
WITH swept AS (
  DELETE FROM replicas WHERE id <> $replica_id AND beats_until < now() - interval '1 min'
)
INSERT INTO replicas (id, host, pid, started_at, beats_until, status)
VALUES ($replica_id, $host, $pid, now() - $age::interval, now() + $alive_for::interval, $status::jsonb)
ON CONFLICT (id) DO UPDATE SET beat_at = now(), beats_until = excluded.beats_until, status = excluded.status;

-- name: read_overrides
-- The runtime settings, by the database's clock, and the newest version of the schema.
SELECT extract(epoch FROM clock_timestamp())::float8 AS read_at, version, poll_min, poll_max, recheck_min, recheck_max,
  max_concurrency, (SELECT max(version) FROM schema_migrations) AS schema_version
FROM dispatch_settings;

-- name: leave
DELETE FROM replicas WHERE id = $replica_id;
