-- What all replicas share about rates and about how endpoints are doing.

-- name: breakers
-- The endpoints to which not everything is let through, or nothing for a while.
SELECT name, breaker, suspension,
  CASE WHEN breaker = {BreakerState.CLOSED} THEN 0 ELSE extract(epoch FROM probe_at - now()) END::float8 AS probe_in,
  greatest(0, coalesce(extract(epoch FROM paused_until - now()), 0))::float8 AS pause_in
FROM endpoints WHERE name = ANY($names::text[]) AND (breaker <> {BreakerState.CLOSED} OR paused_until > now());

-- name: pause
-- Lets nobody send to an endpoint for $pause. One pause follows another as long as they touch.
INSERT INTO endpoints AS e (name, paused_at, paused_until) VALUES ($endpoint, now(), now() + $pause::interval)
ON CONFLICT (name) DO UPDATE SET
  paused_at = CASE WHEN e.paused_until > now() THEN e.paused_at ELSE now() END,
  paused_until = greatest(e.paused_until, excluded.paused_until);

-- name: open_breaker
-- Stops the sending to an endpoint for all; $suspension says why, 0 that it does not answer. Who comes second
-- changes nothing.
INSERT INTO endpoints AS e (name, breaker, probe_at, last_error, suspension)
VALUES ($endpoint, {BreakerState.OPEN}, now() + $probe_in::interval, $error, $suspension)
ON CONFLICT (name) DO UPDATE SET
  breaker = {BreakerState.OPEN}, changed_at = now(), probe_at = excluded.probe_at, probes = 0, prober = NULL,
  last_error = excluded.last_error, suspension = excluded.suspension
WHERE e.breaker = {BreakerState.CLOSED};

-- name: begin_probe
-- Lets one replica send one message, for as long as it may take; then others may try.
UPDATE endpoints SET breaker = {BreakerState.HALF_OPEN}, prober = $replica_id, probe_at = now() + $longest::interval
WHERE name = $endpoint AND breaker <> {BreakerState.CLOSED} AND probe_at <= now()
RETURNING name;

-- name: close_breaker
-- The probe was answered: everything is let through again.
UPDATE endpoints SET breaker = {BreakerState.CLOSED}, changed_at = now(), probes = 0, prober = NULL, last_error = '',
  suspension = 0
WHERE name = $endpoint AND breaker = {BreakerState.HALF_OPEN} AND prober = $replica_id;

-- name: fail_probe
-- The probe failed: the next one comes later, each time twice as late up to a limit.
UPDATE endpoints
SET breaker = {BreakerState.OPEN}, prober = NULL, probes = probes + 1, last_error = $error,
  probe_at = now() + least($shortest::interval * power(2, least(probes + 1, 20)), $longest::interval)
WHERE name = $endpoint AND breaker = {BreakerState.HALF_OPEN} AND prober = $replica_id
RETURNING extract(epoch FROM probe_at - now())::float8 AS probe_in;

-- name: reserve
-- Gives out moments at which requests may start: of each key ($keys) those up to $horizon from now, $rates a
-- second, $wanted at the most. They follow one another over all replicas; what nobody asked for in time
-- is lost, so that no burst follows a pause. Keys are locked in their order.
INSERT INTO rate_slots AS r (key, since, next_at, granted)
SELECT key, now(), now() + g.n / rate * interval '1 s', g.n
FROM unnest($keys::text[], $rates::float8[], $wanted::int[]) AS a(key, rate, wanted)
CROSS JOIN LATERAL (
  SELECT least(wanted, floor(extract(epoch FROM $horizon::interval)::float8 * rate)::int + 1) AS n
) g
ORDER BY key
ON CONFLICT (key) DO UPDATE SET (since, next_at, granted) = (
  SELECT s.since, s.since + s.n * s.step, s.n
  FROM (
    SELECT b.since, b.step,
      -- The wish is read back from the row that would have been inserted.
      greatest(0, least(b.wanted, floor(extract(epoch FROM now() + $horizon::interval - b.since)::float8
        / extract(epoch FROM b.step)::float8)::int + 1)) AS n
    FROM (
      SELECT greatest(r.next_at, now()) AS since, (1 / a.rate) * interval '1 s' AS step, a.wanted
      FROM unnest($keys::text[], $rates::float8[], $wanted::int[]) AS a(key, rate, wanted) WHERE a.key = r.key LIMIT 1
    ) b
  ) s
)
RETURNING key, extract(epoch FROM since)::float8 AS since, granted,
  extract(epoch FROM now())::float8 AS read_at;

-- name: get_endpoints
SELECT name, breaker, last_error FROM endpoints WHERE name = ANY ($names::text[]);

-- name: get_suspensions
-- The endpoints to which nothing is sent because of what they answer, with the reason.
SELECT name, last_error,
  CASE WHEN breaker <> {BreakerState.CLOSED} AND suspension > 0 THEN suspension ELSE {Suspension.THROTTLED} END AS reason,
  CASE WHEN breaker <> {BreakerState.CLOSED} AND suspension > 0 THEN changed_at ELSE paused_at END AS since,
  CASE WHEN breaker <> {BreakerState.CLOSED} AND suspension > 0 THEN probe_at ELSE paused_until END AS until
FROM endpoints
WHERE (breaker <> {BreakerState.CLOSED} AND suspension > 0) OR paused_until > now();
