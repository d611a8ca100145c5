-- Daily quotas: how many messages may leave on each local day.

-- migrate:up

DO $$
BEGIN
  ALTER TABLE mailings
    ADD COLUMN max_per_day bigint NOT NULL DEFAULT 0,
    ADD COLUMN max_per_day_timezone text NOT NULL DEFAULT '';
  ALTER TABLE mailings ADD CONSTRAINT mailings_max_per_day_check CHECK (max_per_day >= 0);
END $$;

-- What replicas reserved of a day, under `mailing/ID` or `endpoint/NAME`; `granted` is what was reserved last.
CREATE TABLE day_quotas (
  key     text        NOT NULL,
  day     date        NOT NULL,
  quota   bigint      NOT NULL,
  used    bigint      NOT NULL,
  granted bigint      NOT NULL,
  ends_at timestamptz NOT NULL,
  PRIMARY KEY (key, day)
) WITH (fillfactor = 20);

-- The first moment of a day. A midnight that the clock skips comes when it goes on, of one that it shows twice the
-- first one counts.
CREATE FUNCTION day_begins(timezone text, day date)
RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN ((b.moment - interval '1 h') AT TIME ZONE timezone)::date = day THEN b.moment - interval '1 h'
    ELSE b.moment END
  FROM (SELECT day::timestamp AT TIME ZONE timezone AS moment) b
$$;

-- migrate:down

DROP FUNCTION day_begins(text, date);
DROP TABLE day_quotas;
DO $$
BEGIN
  ALTER TABLE mailings DROP COLUMN max_per_day_timezone, DROP COLUMN max_per_day;
END $$;
