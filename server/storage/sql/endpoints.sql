-- What all replicas share about endpoints: circuit breakers, and the slots of rate limits.

-- name: breakers
-- The endpoints whose breaker is not closed, or that asked for patience. A moment that a clock set back
-- left further ahead than it can be is over.
SELECT name, breaker, suspension,
  CASE WHEN breaker = {BreakerState.CLOSED} OR probe_at > now() + interval '6 min' THEN 0
    ELSE extract(epoch FROM probe_at - now()) END::float8 AS probe_in,
  CASE WHEN paused_at > now() + interval '5 s' THEN 0
    ELSE greatest(0, coalesce(extract(epoch FROM paused_until - now()), 0)) END::float8 AS pause_in
FROM endpoints
WHERE name = ANY($names::text[]) AND (breaker <> {BreakerState.CLOSED} OR paused_until > now());

-- name: pause
-- Lets nobody send to an endpoint for $pause. One pause follows another as long as they touch.
INSERT INTO endpoints AS e (name, paused_at, paused_until) VALUES ($endpoint, now(), now() + $pause::interval)
ON CONFLICT (name) DO UPDATE SET
  paused_at = CASE WHEN e.paused_until > now() AND e.paused_at <= now() THEN e.paused_at ELSE now() END,
  paused_until = CASE WHEN e.paused_at > now() THEN excluded.paused_until
    ELSE greatest(e.paused_until, excluded.paused_until) END;

-- name: open_breaker
-- Stops sending to an endpoint for all replicas; $suspension says why, 0 that it does not answer. Only the
-- first call changes something, and none where another replica delivered something in the last
-- $recent seconds: it is this one that has no way there.
INSERT INTO endpoints AS e (name, breaker, probe_at, last_error, suspension)
SELECT $endpoint, {BreakerState.OPEN}, now() + $probe_in::interval, $error, $suspension
WHERE NOT EXISTS (
  SELECT 1 FROM replicas r CROSS JOIN jsonb_array_elements(r.status -> 'endpoints') AS s
  WHERE r.id <> $replica_id AND r.beats_until > now() AND s ->> 'name' = $endpoint
    AND (s ->> 'delivered_ago')::float8 + extract(epoch FROM now() - r.beat_at) < $recent::float8
)
ON CONFLICT (name) DO UPDATE SET
  breaker = {BreakerState.OPEN}, changed_at = now(), probe_at = excluded.probe_at, probes = 0, prober = NULL,
  last_error = excluded.last_error, suspension = excluded.suspension
WHERE e.breaker = {BreakerState.CLOSED};

-- name: is_open
SELECT breaker <> {BreakerState.CLOSED} FROM endpoints WHERE name = $endpoint;

-- name: begin_probe
-- Lets one replica send one message; when $longest has passed, another may try.
UPDATE endpoints SET breaker = {BreakerState.HALF_OPEN}, prober = $replica_id, probe_at = now() + $longest::interval
WHERE name = $endpoint AND breaker <> {BreakerState.CLOSED}
  AND (probe_at <= now() OR probe_at > now() + interval '6 min')
RETURNING name;

-- name: close_breaker
-- The probe succeeded: all messages are sent again.
UPDATE endpoints SET breaker = {BreakerState.CLOSED}, changed_at = now(), probes = 0, prober = NULL, last_error = '',
  suspension = 0
WHERE name = $endpoint AND breaker = {BreakerState.HALF_OPEN} AND prober = $replica_id;

-- name: fail_probe
-- The probe failed: the next one may come after twice the wait, up to $longest.
UPDATE endpoints
SET breaker = {BreakerState.OPEN}, prober = NULL, probes = probes + 1, last_error = $error,
  probe_at = now() + least($shortest::interval * power(2, least(probes + 1, 20)), $longest::interval)
WHERE name = $endpoint AND breaker = {BreakerState.HALF_OPEN} AND prober = $replica_id
RETURNING extract(epoch FROM probe_at - now())::float8 AS probe_in;

-- fragment: requests
-- The requests, with rates of which every step is an interval of some length.
(
  SELECT key, least(greatest(rate, 0.0001), 1000000) AS rate, wanted
  FROM unnest($keys::text[], $rates::float8[], $wanted::int[]) AS u(key, rate, wanted)
) a

-- name: reserve
-- Reserves moments at which requests may start: for each key up to $wanted of them, $rates a second,
-- within $horizon from now. They follow one another over all replicas. Moments that nobody reserved
-- in time are lost, so that no burst follows a pause. The next one is never further ahead than the
-- horizon and a step: one that is was stored by a clock that was set back since, or for a slower rate.
-- Keys are locked in their order.
INSERT INTO rate_slots AS r (key, since, next_at, granted)
SELECT key, now(), now() + g.n / rate * interval '1 s', g.n
FROM {requests}
CROSS JOIN LATERAL (
  SELECT least(wanted, floor(extract(epoch FROM $horizon::interval)::float8 * rate)::int + 1) AS n
) g
ORDER BY key
ON CONFLICT (key) DO UPDATE SET (since, next_at, granted) = (
  SELECT s.since, s.since + s.n * s.step, s.n
  FROM (
    SELECT b.since, b.step,
      -- What was wanted is looked up again: `excluded` does not hold it.
      greatest(0, least(b.wanted, floor(extract(epoch FROM now() + $horizon::interval - b.since)::float8
        / extract(epoch FROM b.step)::float8)::int + 1)) AS n
    FROM (
      SELECT d.step, a.wanted,
        -- With room for transactions that began at other moments: their now() differs.
        CASE WHEN r.next_at > now() + $horizon::interval + d.step + interval '5 s' THEN now() + $horizon::interval + d.step
          ELSE greatest(r.next_at, now()) END AS since
      FROM {requests} CROSS JOIN LATERAL (SELECT (1 / a.rate) * interval '1 s' AS step) d WHERE a.key = r.key LIMIT 1
    ) b
  ) s
)
RETURNING key, extract(epoch FROM since)::float8 AS since, granted,
  extract(epoch FROM now())::float8 AS read_at;

-- name: get_endpoints
-- The state of endpoints, for the API.
SELECT name, breaker, last_error FROM endpoints WHERE name = ANY ($names::text[]);

-- name: get_suspensions
-- The endpoints to which nothing is sent because of what they answer, with the reason.
SELECT name, last_error,
  CASE WHEN breaker <> {BreakerState.CLOSED} AND suspension > 0 THEN suspension ELSE {Suspension.THROTTLED} END AS reason,
  CASE WHEN breaker <> {BreakerState.CLOSED} AND suspension > 0 THEN changed_at ELSE paused_at END AS since,
  CASE WHEN breaker <> {BreakerState.CLOSED} AND suspension > 0 THEN probe_at ELSE paused_until END AS until
FROM endpoints
WHERE (breaker <> {BreakerState.CLOSED} AND suspension > 0) OR paused_until > now();
