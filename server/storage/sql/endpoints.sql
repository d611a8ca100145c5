-- What all replicas share about endpoints: circuit breakers, and the slots of rate limits.

-- name: breakers
-- The endpoints whose breaker is not closed.
SELECT name, breaker, extract(epoch FROM probe_at - now())::float8 AS probe_in
FROM endpoints WHERE name = ANY($names::text[]) AND breaker <> {BreakerState.CLOSED};

-- name: open_breaker
-- Stops sending to an endpoint for all replicas. Only the first call changes something.
INSERT INTO endpoints AS e (name, breaker, probe_at, last_error)
VALUES ($endpoint, {BreakerState.OPEN}, now() + $probe_in::interval, $error)
ON CONFLICT (name) DO UPDATE SET
  breaker = {BreakerState.OPEN}, changed_at = now(), probe_at = excluded.probe_at, probes = 0, prober = NULL,
  last_error = excluded.last_error
WHERE e.breaker = {BreakerState.CLOSED};

-- name: begin_probe
-- Lets one replica send one message; when $longest has passed, another may try.
UPDATE endpoints SET breaker = {BreakerState.HALF_OPEN}, prober = $replica_id, probe_at = now() + $longest::interval
WHERE name = $endpoint AND breaker <> {BreakerState.CLOSED} AND probe_at <= now()
RETURNING name;

-- name: close_breaker
-- The probe succeeded: all messages are sent again.
UPDATE endpoints SET breaker = {BreakerState.CLOSED}, changed_at = now(), probes = 0, prober = NULL, last_error = ''
WHERE name = $endpoint AND breaker = {BreakerState.HALF_OPEN} AND prober = $replica_id;

-- name: fail_probe
-- The probe failed: the next one may come after twice the wait, up to $longest.
UPDATE endpoints
SET breaker = {BreakerState.OPEN}, prober = NULL, probes = probes + 1, last_error = $error,
  probe_at = now() + least($shortest::interval * power(2, least(probes + 1, 20)), $longest::interval)
WHERE name = $endpoint AND breaker = {BreakerState.HALF_OPEN} AND prober = $replica_id
RETURNING extract(epoch FROM probe_at - now())::float8 AS probe_in;

-- name: reserve
-- Reserves moments at which requests may start: for each key up to $wanted of them, $rates a second,
-- within $horizon from now. They follow one another over all replicas. Moments that nobody reserved
-- in time are lost, so that no burst follows a pause. Keys are locked in their order.
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
      -- What was wanted is looked up again: `excluded` does not hold it.
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
-- The state of endpoints, for the API.
SELECT name, breaker, last_error FROM endpoints WHERE name = ANY ($names::text[]);
