-- Daily quotas: what replicas reserve of a day, and return.

-- name: permit
-- Reserves up to $wanted of the $most messages of the present day, and nothing when there is no room. The row is
-- locked, so that replicas reserve one after the other. A day of which more was used than a lowered quota is full.
INSERT INTO day_quotas AS q (key, day, quota, used, granted, ends_at)
SELECT $key, t.day, $most, t.n, t.n, day_begins($timezone, t.day + 1)
FROM (SELECT (now() AT TIME ZONE $timezone::text)::date AS day, least($wanted::bigint, $most::bigint) AS n) t
ON CONFLICT (key, day) DO UPDATE SET
  quota = excluded.quota, ends_at = excluded.ends_at,
  granted = greatest(0, least(excluded.granted, excluded.quota - q.used)),
  used = q.used + greatest(0, least(excluded.granted, excluded.quota - q.used))
RETURNING day::text, granted, greatest(0, quota - used) AS left, used = granted AS is_first,
  extract(epoch FROM ends_at - now())::float8 AS ends_in;

-- name: give_back
UPDATE day_quotas q SET used = greatest(0, q.used - r.n)
FROM unnest($keys::text[], $days::text[]::date[], $counts::bigint[]) AS r(key, day, n)
WHERE q.key = r.key AND q.day = r.day;

-- name: forget_days
-- Removes the days of a key that nobody asks about any more.
DELETE FROM day_quotas WHERE key = $key AND ends_at < now() - interval '3 days';

-- name: used_today
-- What was reserved of the present day, by key.
SELECT key, used FROM unnest($keys::text[], $timezones::text[]) AS u(key, zone)
JOIN day_quotas q USING (key)
WHERE q.day = (now() AT TIME ZONE u.zone)::date;
