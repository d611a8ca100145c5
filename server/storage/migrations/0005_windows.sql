-- Receive windows that are right on the days on which clocks are changed, whatever the time zone
-- of the session.

-- migrate:up

-- How long a window is. 24 hours may be stored as one day, which has 23 or 25 hours in the zone
-- of some sessions: hence seconds.
CREATE OR REPLACE FUNCTION window_span(window_length interval)
RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT make_interval(secs => date_part('epoch', window_length))
$$;

-- When the window of a day opens. A time that the clock skips that day comes as long after the
-- change as if there had been none; of a time that it shows twice the second one counts.
CREATE OR REPLACE FUNCTION window_on(timezone text, window_start time, day date)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (day + window_start) AT TIME ZONE timezone
$$;

-- The first day whose window may still be open: where a clock skips the last hour of a day, that
-- day's window opens on the next one.
CREATE OR REPLACE FUNCTION window_day(timezone text, window_length interval, moment timestamptz)
RETURNS date LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT ((moment - window_span(window_length)) AT TIME ZONE timezone)::date - 1
$$;

-- The two questions about a receive window: the first moment at or after `moment` inside one, and
-- the end of that window. The windows of three days are tried in order; the third has not ended.
-- All these are expressions that Postgres inlines (STABLE: one declared IMMUTABLE would not be,
-- since timestamptz + interval is only stable).
CREATE OR REPLACE FUNCTION window_opens_at(timezone text, window_start time, window_length interval, moment timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT greatest(moment, CASE
    WHEN window_start IS NULL THEN moment
    WHEN window_on(timezone, window_start, window_day(timezone, window_length, moment)) + window_span(window_length) > moment
      THEN window_on(timezone, window_start, window_day(timezone, window_length, moment))
    WHEN window_on(timezone, window_start, window_day(timezone, window_length, moment) + 1) + window_span(window_length) > moment
      THEN window_on(timezone, window_start, window_day(timezone, window_length, moment) + 1)
    ELSE window_on(timezone, window_start, window_day(timezone, window_length, moment) + 2)
  END)
$$;

CREATE OR REPLACE FUNCTION window_closes_at(timezone text, window_start time, window_length interval, moment timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN window_start IS NULL THEN 'infinity'::timestamptz
    WHEN window_on(timezone, window_start, window_day(timezone, window_length, moment)) + window_span(window_length) > moment
      THEN window_on(timezone, window_start, window_day(timezone, window_length, moment)) + window_span(window_length)
    WHEN window_on(timezone, window_start, window_day(timezone, window_length, moment) + 1) + window_span(window_length) > moment
      THEN window_on(timezone, window_start, window_day(timezone, window_length, moment) + 1) + window_span(window_length)
    ELSE window_on(timezone, window_start, window_day(timezone, window_length, moment) + 2) + window_span(window_length)
  END
$$;

-- Postgres takes these names of zones for abbreviations that know no summer time. They are not
-- accepted any more; the zones that they stand for are read as meant.
UPDATE clients SET timezone = CASE timezone WHEN 'EET' THEN 'Europe/Athens' WHEN 'WET' THEN 'Europe/Lisbon' ELSE 'Europe/Brussels' END
WHERE timezone IN ('CET', 'EET', 'MET', 'WET');

-- migrate:down

-- Nothing: earlier releases ask the same questions and are better off with these answers.
