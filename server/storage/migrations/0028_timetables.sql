-- When messages may leave, beside the client's own window: the mailing's sending hours and holidays, its start by the
-- clock on the wall, how late is too late, and a window for clients who have none.

-- migrate:up

-- `sending_hours` is a list of {weekdays, start, seconds, timezone}; without weekdays every day, without a timezone
-- the client's own. `begins_at` is when the first zone of the audience reaches `local_start`, as far as it is known.
-- `judged_at` is when the timetable was changed last.
ALTER TABLE mailings
  ADD COLUMN sending_hours jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN holidays text NOT NULL DEFAULT '',
  ADD COLUMN local_start timestamp,
  ADD COLUMN begins_at timestamptz,
  ADD COLUMN judged_at timestamptz,
  ADD COLUMN skip_after interval CHECK (skip_after > interval '0');
ALTER TABLE mailings ADD COLUMN timed boolean NOT NULL GENERATED ALWAYS AS (
  sending_hours <> '[]' OR holidays <> '' OR local_start IS NOT NULL OR skip_after IS NOT NULL
) STORED;

-- The dates on which nothing leaves, by the name of the calendar.
CREATE TABLE calendars (
  name text   PRIMARY KEY,
  days date[] NOT NULL
);

-- The window of clients without one; NULL is none.
ALTER TABLE dispatch_settings
  ADD COLUMN default_window_start time,
  ADD COLUMN default_window_length interval,
  ADD CHECK ((default_window_start IS NULL) = (default_window_length IS NULL));

-- The first moment at which the clock of a zone shows a time or a later one: the end of the gap for a time that it
-- skips, the first occurrence of one that it shows twice. Where no change is near, it is what Postgres answers; it is
-- looked for otherwise, by minutes, as clocks are changed at full ones.
CREATE FUNCTION reached_at(p_timezone text, p_local timestamp) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN o.at AT TIME ZONE p_timezone = p_local
      AND (o.at - interval '3 hours') AT TIME ZONE p_timezone = p_local - interval '3 hours' THEN o.at
    ELSE (
      SELECT min(b.at - n * interval '1 minute')
      FROM generate_series(0, 180) AS n CROSS JOIN (VALUES (o.at), (date_trunc('minute', o.at))) AS b(at)
      WHERE (b.at - n * interval '1 minute') AT TIME ZONE p_timezone >= p_local
    ) END
  FROM (SELECT p_local AT TIME ZONE p_timezone AS at) o
$$;

-- When messages may leave for clients of a zone and window between two moments: inside the window and the sending
-- hours, and on no holiday. Windows and hours open as `window_on` says; a day is one in the client's zone. The one
-- answer on which due times, closing times, reasons and previews rest.
CREATE FUNCTION openings_v1(
  p_timezone text, p_window_start time, p_window_length interval, p_hours jsonb, p_holidays date[],
  p_since timestamptz, p_until timestamptz
) RETURNS tstzmultirange LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT tstzmultirange(tstzrange(p_since, p_until))
    * CASE WHEN p_window_start IS NULL THEN '{(,)}' ELSE (
      SELECT range_agg(tstzrange(o.at, o.at + window_span(p_window_length)))
      FROM generate_series(0, d.count) AS n
      CROSS JOIN LATERAL (SELECT window_on(p_timezone, p_window_start, d.first + n) AS at) o
    ) END
    * CASE WHEN p_hours = '[]' THEN '{(,)}' ELSE coalesce((
      SELECT range_agg(tstzrange(o.at, o.at + make_interval(secs => h.seconds)))
      FROM jsonb_to_recordset(p_hours) AS h(weekdays int[], start time, seconds int, timezone text)
      CROSS JOIN generate_series(0, d.count) AS n
      CROSS JOIN LATERAL (SELECT window_on(coalesce(h.timezone, p_timezone), h.start, d.first + n) AS at) o
      WHERE h.weekdays IS NULL OR extract(isodow FROM d.first + n)::int = ANY (h.weekdays)
    ), '{}') END
    - coalesce((
      SELECT range_agg(tstzrange(reached_at(p_timezone, day), reached_at(p_timezone, day + 1)))
      FROM unnest(p_holidays) AS day WHERE day BETWEEN d.first AND d.first + d.count
    ), '{}')
  FROM (
    SELECT (p_since AT TIME ZONE 'UTC')::date - 3 AS first,
      (p_until AT TIME ZONE 'UTC')::date - (p_since AT TIME ZONE 'UTC')::date + 4 AS count
  ) d
$$;

-- The first moment at or after another at which a message may leave, and until when; infinity for never within a year,
-- and for longer than is looked ahead.
CREATE FUNCTION next_opening_v1(
  p_timezone text, p_window_start time, p_window_length interval, p_hours jsonb, p_holidays date[], p_moment timestamptz,
  OUT opens_at timestamptz, OUT closes_at timestamptz
) LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  v_days int;
  v_until timestamptz;
  v_open tstzmultirange;
BEGIN
  FOREACH v_days IN ARRAY ARRAY[8, 64, 400] LOOP
    v_until := p_moment + make_interval(hours => 24 * v_days);
    v_open := openings_v1(p_timezone, p_window_start, p_window_length, p_hours, p_holidays, p_moment, v_until);
    IF NOT isempty(v_open) THEN
      opens_at := lower(v_open);
      SELECT upper(r) INTO closes_at FROM unnest(v_open) AS r LIMIT 1;
      closes_at := CASE WHEN closes_at < v_until THEN closes_at ELSE 'infinity' END;
      RETURN;
    END IF;
  END LOOP;
  opens_at := 'infinity';
  closes_at := 'infinity';
END $$;

-- The same for a mailing: not before its local start, not from its end on, and not when it has been due for longer than
-- `p_skip_after`. It was due first at the first opening at or after `p_due_since`, or after the local start. It is too late at `late_at`, NULL for
-- never. `reason` is why it cannot leave: 4 the end, 5 the window, 18 the hours, 16 too late, else 0; `opens_at` is then for people to see.
CREATE FUNCTION next_departure_v1(
  p_timezone text, p_window_start time, p_window_length interval, p_hours jsonb, p_holidays date[],
  p_local_start timestamp, p_skip_after interval, p_ends_at timestamptz, p_due_since timestamptz, p_moment timestamptz,
  OUT opens_at timestamptz, OUT closes_at timestamptz, OUT late_at timestamptz, OUT reason smallint
) LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  v_from timestamptz := CASE WHEN p_local_start IS NOT NULL THEN reached_at(p_timezone, p_local_start) END;
BEGIN
  SELECT n.opens_at, n.closes_at INTO opens_at, closes_at
  FROM next_opening_v1(p_timezone, p_window_start, p_window_length, p_hours, p_holidays, greatest(p_moment, v_from)) n;
  IF p_skip_after IS NOT NULL THEN
    SELECT n.opens_at + window_span(p_skip_after) INTO late_at
    FROM next_opening_v1(p_timezone, p_window_start, p_window_length, p_hours, p_holidays, coalesce(v_from, p_due_since)) n;
  END IF;
  reason := CASE
    WHEN opens_at < least(p_ends_at, late_at) THEN 0
    WHEN opens_at < p_ends_at THEN 16
    WHEN p_moment >= p_ends_at THEN 4
    WHEN p_window_start IS NOT NULL AND window_opens_at(p_timezone, p_window_start, p_window_length, p_moment) >= p_ends_at
      THEN 5
    ELSE 18 END;
  closes_at := least(closes_at, late_at);
  IF opens_at = 'infinity' THEN
    opens_at := greatest(p_moment, v_from);
  END IF;
END $$;

-- Whether `departures_v1` has anything to say of a mailing. Inlined.
CREATE FUNCTION is_timed_v1(p_mailing_id bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT m.timed OR s.default_window_start IS NOT NULL
  FROM mailings m CROSS JOIN dispatch_settings s WHERE m.id = p_mailing_id
$$;

-- When messages of a mailing may leave, at or after moments parallel to the clients (one entry holds for all), in the
-- order of clients; who is gone is left out. Who was taken in after all clients had been read the first time
-- (`expanded_at`) was due since then, all others since the start. Computed once for all clients of a zone, window and moment. The batch
-- knows since when a message without a row is in the mailing; without a batch all are since now.
CREATE FUNCTION departures_v1(
  p_bucket int, p_mailing_id bigint, p_batch_no bigint, p_client_ids bigint[], p_moments timestamptz[]
) RETURNS TABLE (client_id bigint, opens_at timestamptz, closes_at timestamptz, reason smallint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = 'force_custom_plan' AS $$
#variable_conflict use_column
DECLARE
  v record;
BEGIN
  SELECT m.sending_hours, m.local_start, m.skip_after, m.starts_at, coalesce(m.expanded_at, 'infinity') AS expanded_at,
    coalesce(m.ends_at, 'infinity') AS ends_at, coalesce(k.days, '{}') AS holidays, s.default_window_start,
    s.default_window_length, coalesce(b.created_at, now()) AS created_at INTO v
  FROM mailings m CROSS JOIN dispatch_settings s
  LEFT JOIN calendars k ON k.name = m.holidays
  LEFT JOIN batches b ON b.bucket = p_bucket AND b.mailing_id = p_mailing_id AND b.no = p_batch_no
  WHERE m.id = p_mailing_id;
  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT a.id, dense_rank() OVER (
      ORDER BY c.timezone, c.window_start, c.window_length, a.moment, a.due_since
    ) AS alike, c.timezone, c.window_start, c.window_length, a.moment, a.due_since
    FROM (
      SELECT i.id, i.moment, CASE WHEN v.skip_after IS NOT NULL THEN CASE
        WHEN t.created_at <= v.expanded_at THEN v.starts_at ELSE greatest(t.created_at, v.starts_at) END END AS due_since
      FROM unnest(p_client_ids, spread(p_moments, cardinality(p_client_ids))) AS i(id, moment)
      CROSS JOIN LATERAL (
        SELECT coalesce((
          SELECT r.created_at FROM messages r
          WHERE v.skip_after IS NOT NULL AND r.bucket = p_bucket AND r.mailing_id = p_mailing_id AND r.client_id = i.id
        ), v.created_at) AS created_at
      ) t
    ) a
    CROSS JOIN LATERAL (
      SELECT l.timezone, coalesce(l.window_start, v.default_window_start) AS window_start,
        CASE WHEN l.window_start IS NULL THEN v.default_window_length ELSE l.window_length END AS window_length
      FROM clients l WHERE l.bucket = p_bucket AND l.id = a.id LIMIT 1
    ) c
  ), judged AS MATERIALIZED (
    SELECT k.alike, n.opens_at, n.closes_at, n.reason
    FROM (SELECT DISTINCT ON (alike) * FROM asked ORDER BY alike) k
    CROSS JOIN LATERAL next_departure_v1(k.timezone, k.window_start, k.window_length, v.sending_hours, v.holidays,
      v.local_start, v.skip_after, v.ends_at, k.due_since, k.moment) n
  )
  SELECT a.id, j.opens_at, j.closes_at, j.reason FROM asked a JOIN judged j USING (alike) ORDER BY a.id;
END $$;

-- As before, and by the mailing's timetable where it has one: who cannot leave any more ends at once, with the reason.
CREATE OR REPLACE FUNCTION take_in_v1(
  p_bucket int, p_mailing_id bigint, p_batch_size int, p_ends_at timestamptz, p_reached bigint, p_ids bigint[],
  p_due_times timestamptz[]
) RETURNS bigint LANGUAGE plpgsql SET plan_cache_mode = 'force_custom_plan' AS $$
DECLARE
  v_n int;
  v_reasons smallint[];
  v_late bigint[];
  v_seq bigint;
BEGIN
  IF p_ids[1] <= p_reached THEN
    SELECT array_agg(a.id ORDER BY a.id), array_agg(a.due_at ORDER BY a.id) INTO p_ids, p_due_times
    FROM unnest(p_ids, p_due_times) AS a(id, due_at)
    LEFT JOIN LATERAL (
      SELECT true AS found FROM messages m
      WHERE m.bucket = p_bucket AND m.mailing_id = p_mailing_id AND m.client_id = a.id LIMIT 1
    ) m ON true
    LEFT JOIN LATERAL (SELECT true AS found FROM unwritten_v1(p_bucket, p_mailing_id, a.id) LIMIT 1) u ON true
    WHERE m.found IS NULL AND u.found IS NULL;
  END IF;
  v_n := coalesce(cardinality(p_ids), 0);
  IF v_n = 0 THEN
    RETURN 0;
  END IF;
  IF is_timed_v1(p_mailing_id) THEN
    SELECT array_agg(d.client_id), array_agg(d.opens_at), array_agg(d.reason) INTO p_ids, p_due_times, v_reasons
    FROM departures_v1(p_bucket, p_mailing_id, NULL, p_ids, ARRAY[now()]) d;
    v_n := coalesce(cardinality(p_ids), 0);  -- a client may be gone by now
    IF v_n = 0 THEN
      RETURN 0;
    END IF;
  ELSIF NOT p_due_times[1] = ALL (p_due_times) OR p_due_times[1] >= p_ends_at THEN
    SELECT array_agg((CASE WHEN a.due_at < p_ends_at THEN 0 WHEN p_ends_at <= now() THEN 4 ELSE 5 END)::smallint ORDER BY a.at) INTO v_reasons
    FROM unnest(p_due_times) WITH ORDINALITY AS a(due_at, at);
  END IF;
  IF v_reasons IS NULL THEN
    FOR i IN 0 .. (v_n - 1) / p_batch_size LOOP
      INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at, created_at, fresh)
      VALUES (p_bucket, p_mailing_id, nextval('batch_no'), p_ids[i * p_batch_size + 1 : (i + 1) * p_batch_size],
        p_due_times[1], now(), now(), true);
    END LOOP;
  ELSE
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at, created_at, fresh)
    SELECT p_bucket, p_mailing_id, nextval('batch_no'), g.client_ids, g.due_at, now(), now(), true
    FROM parts_v2(p_ids, p_due_times, v_reasons, p_batch_size) g WHERE g.reason = 0;
    SELECT array_agg(a.id ORDER BY a.id) INTO v_late FROM unnest(p_ids, v_reasons) AS a(id, reason) WHERE a.reason > 0;
  END IF;
  IF v_late IS NOT NULL THEN
    UPDATE buckets SET journal_seq = journal_seq + 1 WHERE bucket = p_bucket RETURNING journal_seq INTO v_seq;
    INSERT INTO blocks (bucket, mailing_id, no, client_ids, created_at, due_at, settled_at, status, reason)
    SELECT p_bucket, p_mailing_id, nextval('batch_no'), g.client_ids, now(), g.due_at, now(), 4, g.reason
    FROM parts_v2(p_ids, p_due_times, v_reasons, p_batch_size) g WHERE g.reason > 0;
  END IF;
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
  SELECT p_bucket, p_mailing_id, c.status, c.reason, c.n
  FROM (
    SELECT 1::smallint AS status, 0::smallint AS reason, v_n - coalesce(cardinality(v_late), 0) AS n
    UNION ALL
    SELECT 4::smallint, r.reason, count(*) FROM unnest(v_reasons) AS r(reason) WHERE r.reason > 0 GROUP BY r.reason
  ) c
  WHERE c.n > 0 ORDER BY c.status, c.reason
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n, last_at = excluded.last_at;
  IF v_late IS NOT NULL THEN
    INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
    VALUES (p_bucket, p_mailing_id, 1, 0, cardinality(v_late))
    ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n;
    INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
    VALUES (p_bucket, v_seq, p_mailing_id, v_late, '{4}');
  END IF;
  RETURN v_n;
END $$;

-- Splits clients into parts that are due together, for the same reason (0: to be sent), and no larger than a batch.
CREATE FUNCTION parts_v2(p_ids bigint[], p_due_times timestamptz[], p_reasons smallint[], p_batch_size int)
RETURNS TABLE (client_ids bigint[], due_at timestamptz, reason smallint) LANGUAGE sql STABLE AS $$
  SELECT array_agg(n.id ORDER BY n.id), n.due_at, n.reason
  FROM (
    SELECT a.id, a.due_at, a.reason,
      (row_number() OVER (PARTITION BY a.due_at, a.reason ORDER BY a.id) - 1) / p_batch_size AS part
    FROM unnest(p_ids, p_due_times, p_reasons) AS a(id, due_at, reason)
  ) n
  GROUP BY n.due_at, n.reason, n.part
$$;

-- migrate:down

-- Stop all replicas before. Mailings then go by the windows of clients alone. take_in_v1 stays as it is but for what
-- it asks.
CREATE OR REPLACE FUNCTION is_timed_v1(p_mailing_id bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
DROP FUNCTION departures_v1, next_departure_v1, next_opening_v1, openings_v1, reached_at;
ALTER TABLE dispatch_settings DROP COLUMN default_window_start, DROP COLUMN default_window_length;
DROP TABLE calendars;
ALTER TABLE mailings DROP COLUMN timed, DROP COLUMN skip_after, DROP COLUMN judged_at, DROP COLUMN begins_at,
  DROP COLUMN local_start, DROP COLUMN holidays, DROP COLUMN sending_hours;
