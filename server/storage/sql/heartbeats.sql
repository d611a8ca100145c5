-- The replicas, as each says of itself, and what is set for all of them.

-- name: beat
-- Says how a replica does and until when it counts as alive, and answers with the settings.
-- Whoever has been silent for a minute is swept away, but never by itself: which of both would
-- hold, when one statement removes and writes a row, is not defined.
WITH swept AS (
  DELETE FROM replicas WHERE id <> $1 AND beats_until < now() - interval '1 min'
), beat AS (
  INSERT INTO replicas (id, host, pid, started_at, beats_until, status)
  VALUES ($1, $2, $3, now() - $4::interval, now() + $5::interval, $6::jsonb)
  ON CONFLICT (id) DO UPDATE SET beat_at = now(), beats_until = excluded.beats_until, status = excluded.status
)
SELECT version, poll_min, poll_max, recheck_min, recheck_max, max_concurrency FROM dispatch_settings;

-- name: leave
DELETE FROM replicas WHERE id = $1;
