-- Filters with conditions of every kind, segments, and samples.

-- migrate:up

-- Filters with a name. The size is how many clients matched at `size_at`; NULL: they were not counted.
CREATE SEQUENCE segment_id;
CREATE TABLE segments (
  id         bigint      PRIMARY KEY,
  name       text        NOT NULL,
  filter     jsonb       NOT NULL,
  size       bigint      NOT NULL DEFAULT 0,
  size_at    timestamptz,
  version    int         NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX segments_name ON segments (lower(name));

-- The filter with those of its segments put in, where it names some: what dispatchers use.
ALTER TABLE mailings ADD COLUMN audience jsonb;

-- To whom a mailing with a sample goes, drawn when its expansion begins; another filter has another hash.
CREATE TABLE mailing_samples (
  bucket      int      NOT NULL,
  mailing_id  bigint   NOT NULL,
  filter_hash bigint   NOT NULL,
  client_ids  bigint[] NOT NULL,
  PRIMARY KEY (bucket, mailing_id, filter_hash)
);

-- The number that an attribute holds, NULL where it holds none.
CREATE FUNCTION number_of_v1(p_value text) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_value ~ '^[+-]?[0-9]{1,100}(\.[0-9]{1,100})?$' THEN p_value::numeric END
$$;

-- The time that an attribute holds, a date or a time of RFC 3339, in UTC; NULL where it holds none. A date is its first
-- moment. Nothing here depends on settings of the session, and nothing fails: a day is compared with its month.
CREATE FUNCTION moment_of_v1(p_value text) RETURNS timestamp LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_value ~ (
      '^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])'
      '(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-5]):[0-5][0-9]))?$'
    )
    THEN CASE WHEN substr(p_value, 9, 2)::int <= extract(
      day FROM make_date(substr(p_value, 1, 4)::int, substr(p_value, 6, 2)::int, 1) + interval '1 month - 1 day'
    )
      THEN CASE WHEN length(p_value) = 10
        THEN make_date(substr(p_value, 1, 4)::int, substr(p_value, 6, 2)::int, substr(p_value, 9, 2)::int)::timestamp
        ELSE make_timestamp(
          substr(p_value, 1, 4)::int, substr(p_value, 6, 2)::int, substr(p_value, 9, 2)::int,
          substr(p_value, 12, 2)::int, substr(p_value, 15, 2)::int, substring(p_value from '^.{17}([0-9.]+)')::float8
        ) - CASE WHEN right(p_value, 1) = 'Z' THEN interval '0'
          ELSE make_interval(
            mins => (substr(right(p_value, 6), 2, 2)::int * 60 + right(p_value, 2)::int)
              * CASE left(right(p_value, 6), 1) WHEN '-' THEN -1 ELSE 1 END
          ) END
        END
      END
    END
$$;

-- Those of some clients of a bucket, whose ids ascend, who meet a condition on `c`; all of them without one. The condition
-- is made by the service and refers to $1 for what callers wrote. The LIMIT makes it a look-up of one client after
-- the other.
CREATE FUNCTION narrow_v1(
  p_bucket int, p_ids bigint[], p_due_times timestamptz[], p_condition text, p_literals text[],
  OUT ids bigint[], OUT due_times timestamptz[]
) LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF p_condition IS NULL OR p_ids IS NULL THEN
    ids := p_ids;
    due_times := p_due_times;
  ELSE
    EXECUTE 'SELECT array_agg(a.id ORDER BY a.id), array_agg(a.due_at ORDER BY a.id)
      FROM unnest($3, $4) AS a(id, due_at)
      CROSS JOIN LATERAL (SELECT * FROM clients WHERE bucket = $2 AND id = a.id LIMIT 1) c
      WHERE ' || p_condition
    INTO ids, due_times USING p_literals, p_bucket, p_ids, p_due_times;
  END IF;
END $$;

-- As `expand_v1`, with conditions beside the plain fields of a filter.
CREATE FUNCTION expand_v2(
  p_bucket int, p_mailing_id bigint, p_batch_size int, p_version int, p_limit int, p_position bigint, p_tags text[],
  p_operator_codes text[], p_timezones text[], p_attributes jsonb, p_chosen_ids bigint[], p_condition text,
  p_literals text[]
) RETURNS TABLE ("position" bigint, finished boolean, seen bigint, inserted bigint) LANGUAGE plpgsql AS $$
DECLARE
  e record;
  v record;
  a record;
  v_inserted bigint;
BEGIN
  SELECT x.reached, coalesce(m.ends_at, 'infinity') AS ends_at,
    CASE m.audience_mode WHEN 2 THEN x.started_at ELSE 'infinity' END AS added_until INTO e
  FROM expansions x JOIN mailings m ON m.id = x.mailing_id
  WHERE x.bucket = p_bucket AND x.mailing_id = p_mailing_id AND x.last_client_id = p_position AND NOT x.finished
    AND m.version = p_version AND m.state IN (2, 3)
  FOR UPDATE OF x SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT count(*) AS seen, max(s.id) AS last, array_agg(s.id) FILTER (WHERE s.matches) AS ids,
    array_agg(s.due_at) FILTER (WHERE s.matches) AS due_times INTO v
  FROM (
    SELECT c.id, window_opens_at(c.timezone, c.window_start, c.window_length, now()) AS due_at,
      NOT c.opted_out AND (c.received IS NULL OR p_mailing_id <> ALL (c.received)) AND c.created_at <= e.added_until
        AND (p_tags IS NULL OR c.tag = ANY (p_tags))
        AND (p_operator_codes IS NULL OR c.operator_code = ANY (p_operator_codes))
        AND (p_timezones IS NULL OR c.timezone = ANY (p_timezones))
        AND (p_attributes IS NULL OR c.attributes @> p_attributes) AS matches
    FROM clients c
    WHERE c.bucket = p_bucket AND c.id > p_position AND (p_chosen_ids IS NULL OR c.id = ANY (p_chosen_ids))
    ORDER BY c.id LIMIT p_limit
  ) s;
  SELECT n.* INTO a FROM narrow_v1(p_bucket, v.ids, v.due_times, p_condition, p_literals) n;
  v_inserted := take_in_v1(p_bucket, p_mailing_id, p_batch_size, e.ends_at, e.reached, a.ids, a.due_times);
  RETURN QUERY
  UPDATE expansions x SET last_client_id = greatest(x.last_client_id, v.last), finished = v.seen < p_limit,
    reached = CASE WHEN v.seen < p_limit THEN 9223372036854775807 ELSE greatest(x.reached, v.last) END
  WHERE x.bucket = p_bucket AND x.mailing_id = p_mailing_id
  RETURNING x.last_client_id, x.finished, v.seen, v_inserted;
END $$;

-- As `expand_changes_v1`, with conditions beside the plain fields of a filter.
CREATE FUNCTION expand_changes_v2(
  p_bucket int, p_mailing_id bigint, p_batch_size int, p_version int, p_limit int, p_position bigint, p_tags text[],
  p_operator_codes text[], p_timezones text[], p_attributes jsonb, p_chosen_ids bigint[], p_condition text,
  p_literals text[]
) RETURNS TABLE ("position" bigint, finished boolean, seen bigint, inserted bigint) LANGUAGE plpgsql AS $$
DECLARE
  v_ends_at timestamptz;
  f record;
  v record;
  a record;
  v_inserted bigint;
BEGIN
  SELECT coalesce(m.ends_at, 'infinity') INTO v_ends_at
  FROM expansions x JOIN mailings m ON m.id = x.mailing_id
  WHERE x.bucket = p_bucket AND x.mailing_id = p_mailing_id AND x.change_seq = p_position AND x.finished
    AND m.version = p_version AND m.state = 2
  FOR UPDATE OF x SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT max(c.seq) AS last, count(DISTINCT c.seq) AS seen, array_agg(DISTINCT i.id) AS ids INTO f
  FROM (
    SELECT seq, client_ids FROM client_changes WHERE bucket = p_bucket AND seq > p_position ORDER BY seq LIMIT p_limit
  ) c LEFT JOIN LATERAL unnest(c.client_ids) AS i(id) ON true;
  IF f.seen = 0 THEN
    RETURN;
  END IF;
  SELECT array_agg(c.id ORDER BY c.id) AS ids,
    array_agg(window_opens_at(c.timezone, c.window_start, c.window_length, now()) ORDER BY c.id) AS due_times INTO v
  FROM (SELECT unnest(f.ids) AS id OFFSET 0) i
  CROSS JOIN LATERAL (SELECT * FROM clients WHERE bucket = p_bucket AND id = i.id LIMIT 1) c
  WHERE NOT c.opted_out AND (c.received IS NULL OR p_mailing_id <> ALL (c.received))
    AND (p_tags IS NULL OR c.tag = ANY (p_tags))
    AND (p_operator_codes IS NULL OR c.operator_code = ANY (p_operator_codes))
    AND (p_timezones IS NULL OR c.timezone = ANY (p_timezones))
    AND (p_attributes IS NULL OR c.attributes @> p_attributes)
    AND (p_chosen_ids IS NULL OR c.id = ANY (p_chosen_ids));
  SELECT n.* INTO a FROM narrow_v1(p_bucket, v.ids, v.due_times, p_condition, p_literals) n;
  v_inserted := take_in_v1(p_bucket, p_mailing_id, p_batch_size, v_ends_at, 9223372036854775807, a.ids, a.due_times);
  RETURN QUERY
  UPDATE expansions x SET change_seq = f.last, reached = 9223372036854775807
  WHERE x.bucket = p_bucket AND x.mailing_id = p_mailing_id
  RETURNING x.change_seq, f.seen < p_limit, f.seen, v_inserted;
END $$;

-- migrate:down

DROP FUNCTION expand_v2, expand_changes_v2, narrow_v1, number_of_v1, moment_of_v1;
DROP TABLE mailing_samples, segments;
DROP SEQUENCE segment_id;
ALTER TABLE mailings DROP COLUMN audience;
