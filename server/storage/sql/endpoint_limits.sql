-- What all replicas share about rates and about how endpoints are doing.

-- name: breakers
-- The endpoints to which not everything is let through.
SELECT name, breaker, extract(epoch FROM probe_at - now())::float8 AS probe_in
FROM endpoints WHERE name = ANY($1::text[]) AND breaker <> 1;

-- name: open_breaker
-- Stops the sending to an endpoint for all. Who comes second changes nothing.
INSERT INTO endpoints AS e (name, breaker, probe_at, last_error)
VALUES ($1, 2, now() + $2::interval, $3)
ON CONFLICT (name) DO UPDATE SET breaker = 2, changed_at = now(), probe_at = excluded.probe_at, probes = 0,
  prober = NULL, last_error = excluded.last_error
WHERE e.breaker = 1;

-- name: begin_probe
-- Lets one replica send one message, for as long as it may take; then others may try.
UPDATE endpoints SET breaker = 3, prober = $2, probe_at = now() + $3::interval
WHERE name = $1 AND breaker <> 1 AND probe_at <= now()
RETURNING name;

-- name: close_breaker
-- The probe was answered: everything is let through again.
UPDATE endpoints SET breaker = 1, changed_at = now(), probes = 0, prober = NULL, last_error = ''
WHERE name = $1 AND breaker = 3 AND prober = $2;

-- name: fail_probe
-- The probe failed: the next one comes later, each time twice as late up to a limit.
UPDATE endpoints
SET breaker = 2, prober = NULL, probes = probes + 1, last_error = $5,
  probe_at = now() + least($3::interval * power(2, least(probes + 1, 20)), $4::interval)
WHERE name = $1 AND breaker = 3 AND prober = $2
RETURNING extract(epoch FROM probe_at - now())::float8 AS probe_in;

-- name: reserve
-- Gives out moments at which requests may start: of each key ($1) those up to $4 from now, $2 a
-- second, $3 at the most. They follow one another over all replicas; what nobody asked for in time
-- is lost, so that no burst follows a pause. Keys are locked in their order.
INSERT INTO rate_slots AS r (key, since, next_at, granted)
SELECT key, now(), now() + g.n / rate * interval '1 s', g.n
FROM unnest($1::text[], $2::float8[], $3::int[]) AS a(key, rate, wanted)
CROSS JOIN LATERAL (
  SELECT least(wanted, floor(extract(epoch FROM $4::interval)::float8 * rate)::int + 1) AS n
) g
ORDER BY key
ON CONFLICT (key) DO UPDATE SET (since, next_at, granted) = (
  SELECT s.since, s.since + s.n * s.step, s.n
  FROM (
    SELECT b.since, b.step,
      -- The wish is read back from the row that would have been inserted.
      greatest(0, least(b.wanted, floor(extract(epoch FROM now() + $4::interval - b.since)::float8
        / extract(epoch FROM b.step)::float8)::int + 1)) AS n
    FROM (
      SELECT greatest(r.next_at, now()) AS since, (1 / a.rate) * interval '1 s' AS step, a.wanted
      FROM unnest($1::text[], $2::float8[], $3::int[]) AS a(key, rate, wanted) WHERE a.key = r.key LIMIT 1
    ) b
  ) s
)
RETURNING key, extract(epoch FROM since)::float8 AS since, granted,
  extract(epoch FROM now())::float8 AS read_at;
