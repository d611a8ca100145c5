-- What reads or updates rows of messages is planned for the mailing each time: a plan for any mailing would have, and
-- lock, every partition. What only inserts them finds the partition by itself.

-- migrate:up

-- The pending messages of a batch that have rows.
CREATE FUNCTION pending_rows_v1(p_bucket int, p_mailing_id bigint, p_client_ids bigint[]) RETURNS SETOF messages
LANGUAGE plpgsql STABLE SET plan_cache_mode = 'force_custom_plan' AS $$
BEGIN
  RETURN QUERY
  SELECT m.* FROM messages m
  WHERE m.bucket = p_bucket AND m.mailing_id = p_mailing_id AND m.client_id = ANY (p_client_ids)
    AND m.client_id BETWEEN p_client_ids[1] AND p_client_ids[cardinality(p_client_ids)] AND m.status = 1
  ORDER BY m.client_id;
END $$;

ALTER FUNCTION settle_rows_v1 SET plan_cache_mode = 'force_custom_plan';
ALTER FUNCTION take_in_v1 SET plan_cache_mode = 'force_custom_plan';

-- As it was, but for where it reads the rows of messages.
CREATE OR REPLACE FUNCTION claim_v1(
  p_bucket int, p_mailing_id bigint, p_version int, p_state smallint, p_most int, p_held bigint[], p_lease interval,
  p_replica_id uuid, p_max_backoff interval, p_with_values boolean, p_tags text[], p_operator_codes text[],
  p_timezones text[], p_attributes jsonb, p_chosen_ids bigint[]
) RETURNS TABLE (
  no bigint, fence int, reclaimed boolean, claimed_at timestamptz, change_no bigint, client_ids bigint[],
  attempts smallint[], uncounted smallint[], maybe_sent boolean[], phones text[], skip_reasons smallint[],
  opens_at timestamptz[], closes_in float8[], overdue boolean[], operator_codes text[], tags text[], timezones text[],
  attributes jsonb[], gone bigint[]
) LANGUAGE plpgsql SET plan_cache_mode = 'force_generic_plan' AS $$
#variable_conflict use_column
DECLARE
  b record;
BEGIN
  FOR b IN
    WITH picked AS (
      SELECT t.no, t.holder FROM batches t
      WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.due_at <= now() AND t.lease_until <= now()
        AND t.no <> ALL (p_held)
        AND EXISTS (
          SELECT FROM mailings g
          WHERE g.id = p_mailing_id AND g.version = p_version AND g.state = p_state
            AND (g.state IN (2, 5) OR g.ends_at <= now())
        )
        AND NOT EXISTS (SELECT FROM dispatch_settings WHERE stopped)
      ORDER BY t.no LIMIT p_most
      FOR UPDATE SKIP LOCKED
    )
    UPDATE batches t
    SET fence = t.fence + 1, lease_until = now() + p_lease, leased_at = now(), holder = p_replica_id,
      doubtful = t.doubtful OR p.holder IS NOT NULL
    FROM picked p
    WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.no = p.no
    RETURNING t.no, t.fence, t.client_ids, t.lowest, t.highest, t.doubtful, t.fresh, t.created_at,
      (SELECT s.seq FROM client_change_seqs s WHERE s.bucket = p_bucket) AS change_no
  LOOP
    IF b.fresh THEN
      RETURN QUERY
      SELECT b.no, b.fence, b.doubtful, now(), b.change_no, array_agg(r.id), NULL::smallint[], NULL::smallint[],
        NULL::boolean[], array_agg(r.phone),
        CASE WHEN max(r.skip_reason) > 0 THEN array_agg(r.skip_reason) END,
        CASE WHEN count(r.opens_at) > 0 THEN array_agg(r.opens_at) END,
        CASE WHEN count(r.closes_in) > 0 THEN array_agg(r.closes_in) END,
        CASE WHEN b.created_at < now() - interval '1 day' THEN array_fill(true, ARRAY[count(*)::int]) END,
        array_agg(r.operator_code) FILTER (WHERE p_with_values), array_agg(r.tag) FILTER (WHERE p_with_values),
        array_agg(r.timezone) FILTER (WHERE p_with_values), array_agg(r.attributes) FILTER (WHERE p_with_values),
        CASE WHEN count(*) < cardinality(b.client_ids) THEN without_v1(b.client_ids, array_agg(r.id)) END
      FROM (
        -- The ends beside the array keep the index range tight, whatever the planner estimates.
        SELECT c.id, c.phone, c.operator_code, c.tag, c.timezone, c.attributes,
          skip_reason_v1(c.opted_out, c.id, c.tag, c.operator_code, c.timezone, c.attributes, p_tags,
            p_operator_codes, p_timezones, p_attributes, p_chosen_ids) AS skip_reason,
          CASE WHEN c.window_start IS NOT NULL
            THEN nullif(window_opens_at(c.timezone, c.window_start, c.window_length, now()), now()) END AS opens_at,
          CASE WHEN c.window_start IS NOT NULL THEN extract(
            epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now()
          )::float8 END AS closes_in
        FROM clients c
        WHERE c.bucket = p_bucket AND c.id = ANY (b.client_ids) AND c.id BETWEEN b.lowest AND b.highest
        ORDER BY c.id
      ) r;
    ELSE
      RETURN QUERY
      SELECT b.no, b.fence, b.doubtful, now(), b.change_no, array_agg(r.client_id), array_agg(r.attempts),
        array_agg(r.uncounted), array_agg(r.maybe_sent), array_agg(r.phone), array_agg(r.skip_reason),
        array_agg(r.opens_at), array_agg(r.closes_in), array_agg(r.overdue),
        array_agg(r.operator_code) FILTER (WHERE p_with_values), array_agg(r.tag) FILTER (WHERE p_with_values),
        array_agg(r.timezone) FILTER (WHERE p_with_values), array_agg(r.attributes) FILTER (WHERE p_with_values),
        NULL::bigint[]
      FROM (
        SELECT m.client_id, m.attempts, coalesce(m.forgiven, 0::smallint) AS uncounted, m.maybe_sent IS TRUE AS maybe_sent,
          m.created_at < now() - interval '1 day' AS overdue, c.phone, c.operator_code, c.tag, c.timezone,
          c.attributes,
          skip_reason_v1(c.opted_out, m.client_id, c.tag, c.operator_code, c.timezone, c.attributes, p_tags,
            p_operator_codes, p_timezones, p_attributes, p_chosen_ids) AS skip_reason,
          CASE WHEN c.window_start IS NOT NULL
            THEN nullif(window_opens_at(c.timezone, c.window_start, c.window_length, m.due), now())
            ELSE nullif(m.due, now()) END AS opens_at,
          CASE WHEN c.window_start IS NOT NULL THEN extract(
            epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now()
          )::float8 END AS closes_in
        FROM (
          -- What was due at once, and a retry further ahead than it can be, are due: the clock was set back since.
          SELECT t.*, CASE WHEN t.due_at > t.created_at AND t.due_at <= now() + p_max_backoff + interval '5 s'
            THEN greatest(t.due_at, now()) ELSE now() END AS due
          FROM pending_rows_v1(p_bucket, p_mailing_id, b.client_ids) t
        ) m
        -- The LIMIT makes it a look-up of one client after the other, by the key.
        LEFT JOIN LATERAL (SELECT * FROM clients WHERE bucket = p_bucket AND id = m.client_id LIMIT 1) c ON true
      ) r;
    END IF;
  END LOOP;
END $$;

-- migrate:down

CREATE OR REPLACE FUNCTION claim_v1(
  p_bucket int, p_mailing_id bigint, p_version int, p_state smallint, p_most int, p_held bigint[], p_lease interval,
  p_replica_id uuid, p_max_backoff interval, p_with_values boolean, p_tags text[], p_operator_codes text[],
  p_timezones text[], p_attributes jsonb, p_chosen_ids bigint[]
) RETURNS TABLE (
  no bigint, fence int, reclaimed boolean, claimed_at timestamptz, change_no bigint, client_ids bigint[],
  attempts smallint[], uncounted smallint[], maybe_sent boolean[], phones text[], skip_reasons smallint[],
  opens_at timestamptz[], closes_in float8[], overdue boolean[], operator_codes text[], tags text[], timezones text[],
  attributes jsonb[], gone bigint[]
) LANGUAGE plpgsql SET plan_cache_mode = 'force_generic_plan' AS $$
#variable_conflict use_column
DECLARE
  b record;
BEGIN
  FOR b IN
    WITH picked AS (
      SELECT t.no, t.holder FROM batches t
      WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.due_at <= now() AND t.lease_until <= now()
        AND t.no <> ALL (p_held)
        AND EXISTS (
          SELECT FROM mailings g
          WHERE g.id = p_mailing_id AND g.version = p_version AND g.state = p_state
            AND (g.state IN (2, 5) OR g.ends_at <= now())
        )
        AND NOT EXISTS (SELECT FROM dispatch_settings WHERE stopped)
      ORDER BY t.no LIMIT p_most
      FOR UPDATE SKIP LOCKED
    )
    UPDATE batches t
    SET fence = t.fence + 1, lease_until = now() + p_lease, leased_at = now(), holder = p_replica_id,
      doubtful = t.doubtful OR p.holder IS NOT NULL
    FROM picked p
    WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.no = p.no
    RETURNING t.no, t.fence, t.client_ids, t.lowest, t.highest, t.doubtful, t.fresh, t.created_at,
      (SELECT s.seq FROM client_change_seqs s WHERE s.bucket = p_bucket) AS change_no
  LOOP
    IF b.fresh THEN
      RETURN QUERY
      SELECT b.no, b.fence, b.doubtful, now(), b.change_no, array_agg(r.id), NULL::smallint[], NULL::smallint[],
        NULL::boolean[], array_agg(r.phone),
        CASE WHEN max(r.skip_reason) > 0 THEN array_agg(r.skip_reason) END,
        CASE WHEN count(r.opens_at) > 0 THEN array_agg(r.opens_at) END,
        CASE WHEN count(r.closes_in) > 0 THEN array_agg(r.closes_in) END,
        CASE WHEN b.created_at < now() - interval '1 day' THEN array_fill(true, ARRAY[count(*)::int]) END,
        array_agg(r.operator_code) FILTER (WHERE p_with_values), array_agg(r.tag) FILTER (WHERE p_with_values),
        array_agg(r.timezone) FILTER (WHERE p_with_values), array_agg(r.attributes) FILTER (WHERE p_with_values),
        CASE WHEN count(*) < cardinality(b.client_ids) THEN without_v1(b.client_ids, array_agg(r.id)) END
      FROM (
        -- The ends beside the array keep the index range tight, whatever the planner estimates.
        SELECT c.id, c.phone, c.operator_code, c.tag, c.timezone, c.attributes,
          skip_reason_v1(c.opted_out, c.id, c.tag, c.operator_code, c.timezone, c.attributes, p_tags,
            p_operator_codes, p_timezones, p_attributes, p_chosen_ids) AS skip_reason,
          CASE WHEN c.window_start IS NOT NULL
            THEN nullif(window_opens_at(c.timezone, c.window_start, c.window_length, now()), now()) END AS opens_at,
          CASE WHEN c.window_start IS NOT NULL THEN extract(
            epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now()
          )::float8 END AS closes_in
        FROM clients c
        WHERE c.bucket = p_bucket AND c.id = ANY (b.client_ids) AND c.id BETWEEN b.lowest AND b.highest
        ORDER BY c.id
      ) r;
    ELSE
      RETURN QUERY
      SELECT b.no, b.fence, b.doubtful, now(), b.change_no, array_agg(r.client_id), array_agg(r.attempts),
        array_agg(r.uncounted), array_agg(r.maybe_sent), array_agg(r.phone), array_agg(r.skip_reason),
        array_agg(r.opens_at), array_agg(r.closes_in), array_agg(r.overdue),
        array_agg(r.operator_code) FILTER (WHERE p_with_values), array_agg(r.tag) FILTER (WHERE p_with_values),
        array_agg(r.timezone) FILTER (WHERE p_with_values), array_agg(r.attributes) FILTER (WHERE p_with_values),
        NULL::bigint[]
      FROM (
        SELECT m.client_id, m.attempts, coalesce(m.forgiven, 0::smallint) AS uncounted, m.maybe_sent IS TRUE AS maybe_sent,
          m.created_at < now() - interval '1 day' AS overdue, c.phone, c.operator_code, c.tag, c.timezone,
          c.attributes,
          skip_reason_v1(c.opted_out, m.client_id, c.tag, c.operator_code, c.timezone, c.attributes, p_tags,
            p_operator_codes, p_timezones, p_attributes, p_chosen_ids) AS skip_reason,
          CASE WHEN c.window_start IS NOT NULL
            THEN nullif(window_opens_at(c.timezone, c.window_start, c.window_length, m.due), now())
            ELSE nullif(m.due, now()) END AS opens_at,
          CASE WHEN c.window_start IS NOT NULL THEN extract(
            epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now()
          )::float8 END AS closes_in
        FROM (
          -- What was due at once, and a retry further ahead than it can be, are due: the clock was set back since.
          SELECT t.*, CASE WHEN t.due_at > t.created_at AND t.due_at <= now() + p_max_backoff + interval '5 s'
            THEN greatest(t.due_at, now()) ELSE now() END AS due
          FROM messages t
          WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.client_id = ANY (b.client_ids)
            AND t.client_id BETWEEN b.lowest AND b.highest AND t.status = 1
          ORDER BY t.client_id
        ) m
        -- The LIMIT makes it a look-up of one client after the other, by the key.
        LEFT JOIN LATERAL (SELECT * FROM clients WHERE bucket = p_bucket AND id = m.client_id LIMIT 1) c ON true
      ) r;
    END IF;
  END LOOP;
END $$;
ALTER FUNCTION settle_rows_v1 RESET plan_cache_mode;
ALTER FUNCTION take_in_v1 RESET plan_cache_mode;
DROP FUNCTION pending_rows_v1;
