-- One text for one server and for a cluster, whose nodes refuse some ways to say the same.

-- migrate:up

-- The messages of a mailing that have no row, by the batch or block that names them; `lowest` and `highest` bound who
-- is named. Read by their indexes.
CREATE VIEW unwritten AS
  SELECT bucket, mailing_id, lowest, highest, client_ids, 1::smallint AS status, 0::smallint AS reason, created_at,
    due_at, NULL::timestamptz AS settled_at
  FROM batches WHERE fresh
  UNION ALL
  SELECT bucket, mailing_id, lowest, highest, client_ids, status, reason, created_at, due_at, settled_at
  FROM blocks;

-- The texts of arrays as arrays. They depend on nothing, which the casts do not say of themselves.
CREATE FUNCTION bigints_of(entries text) RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN entries::bigint[];
END $$;

CREATE FUNCTION ints_of(entries text) RETURNS int[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN entries::int[];
END $$;

-- The first $p_limit messages of a mailing in a bucket behind a client, in the order of clients, and with
-- p_with_clients what is known of these. On a cluster each statement has a snapshot of its own: what has no row is read
-- first, so that a message that gets one meanwhile is not missed.
CREATE FUNCTION list_messages_v1(
  p_bucket int, p_mailing_id bigint, p_after bigint, p_limit int, p_statuses smallint[], p_receipts smallint[],
  p_with_clients boolean
) RETURNS TABLE (
  client_id bigint, status smallint, reason smallint, attempts smallint, created_at timestamptz, due_at timestamptz,
  settled_at timestamptz, endpoint_status smallint, endpoint_code bigint, duration_ms int, phone text,
  operator_code text, tag text, timezone text, attributes jsonb
) LANGUAGE plpgsql STABLE SET plan_cache_mode = 'force_custom_plan' AS $$
#variable_conflict use_column
DECLARE
  v record;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM mailings g WHERE g.id = p_mailing_id AND g.messages_removed_at IS NULL) THEN
    RETURN;
  END IF;
  SELECT array_agg(u.client_id) AS ids, array_agg(u.status) AS statuses, array_agg(u.reason) AS reasons,
    array_agg(u.created_at) AS created, array_agg(u.due_at) AS due, array_agg(u.settled_at) AS settled INTO v
  FROM list_unwritten_v1(p_bucket, p_mailing_id, p_after, p_limit, p_statuses) u
  WHERE p_receipts IS NULL;
  RETURN QUERY
  SELECT p.client_id, p.status, p.reason, p.attempts, p.created_at, p.due_at, p.settled_at, p.endpoint_status,
    p.endpoint_code, p.duration_ms, c.phone, c.operator_code, c.tag, c.timezone, c.attributes
  FROM (
    SELECT DISTINCT ON (x.client_id) x.*
    FROM (
      (
        SELECT m.client_id, m.status, m.reason, m.attempts, m.created_at, m.due_at, m.settled_at, m.endpoint_status,
          m.endpoint_code, m.duration_ms, true AS written
        FROM messages m
        WHERE m.bucket = p_bucket AND m.mailing_id = p_mailing_id AND m.client_id > p_after
          AND (p_statuses IS NULL OR m.status = ANY (p_statuses))
          AND (p_receipts IS NULL OR EXISTS (
            SELECT 1 FROM receipts r
            WHERE r.bucket = p_bucket AND r.mailing_id = p_mailing_id AND r.client_id = m.client_id
              AND r.receipt = ANY (p_receipts)
          ))
        ORDER BY m.client_id
        LIMIT p_limit
      )
      UNION ALL
      SELECT u.id, u.status, u.reason, 0::smallint, u.created, u.due, u.settled, NULL, NULL, NULL, false
      FROM unnest(v.ids, v.statuses, v.reasons, v.created, v.due, v.settled)
        AS u (id, status, reason, created, due, settled)
    ) x
    ORDER BY x.client_id, x.written DESC
    LIMIT p_limit
  ) p
  -- The LIMIT makes the client a look-up by the key.
  LEFT JOIN LATERAL (
    SELECT k.phone, k.operator_code, k.tag, k.timezone, k.attributes FROM clients k
    WHERE p_with_clients AND k.bucket = p_bucket AND k.id = p.client_id LIMIT 1
  ) c ON true
  ORDER BY p.client_id;
END $$;

-- Whether a partition has messages of mailings that keep them, looked up by the key for one mailing after the other.
CREATE OR REPLACE FUNCTION keeps_messages_v1(p_suffix text, p_lower bigint, p_upper bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  v_mailing_id bigint;
  v_found boolean;
BEGIN
  FOR v_mailing_id IN
    SELECT g.id FROM mailings g WHERE g.id >= p_lower AND g.id < p_upper AND g.messages_removed_at IS NULL ORDER BY g.id
  LOOP
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM buckets b JOIN messages_%s m ON m.bucket = b.bucket AND m.mailing_id = $1)',
      p_suffix) INTO v_found USING v_mailing_id;
    IF v_found THEN
      RETURN true;
    END IF;
  END LOOP;
  RETURN false;
END $$;

-- As before; the number is taken where the sequence is.
CREATE OR REPLACE FUNCTION add_clients_v1(
  p_buckets int[], p_phones text[], p_operator_codes text[], p_tags text[], p_timezones text[], p_window_starts time[],
  p_window_lengths interval[], p_attributes jsonb[], p_request_buckets int[], p_request_ids uuid[], p_methods text[],
  p_digests bytea[]
) RETURNS SETOF clients LANGUAGE plpgsql AS $$
DECLARE
  v_key bytea := (SELECT key FROM phone_keys);
  v_spread bigint := (SELECT count(*) FROM buckets);
  v_phone bytea;
  v_id bigint;
  v_bucket int;
  v_buckets int[] := '{}';
  v_ids bigint[] := '{}';
BEGIN
  FOR i IN 1 .. cardinality(p_phones) LOOP
    v_phone := sha256(v_key || convert_to(p_phones[i], 'UTF8'));
    CONTINUE WHEN EXISTS (SELECT 1 FROM phone_memories WHERE digest = v_phone);
    CONTINUE WHEN p_request_ids[i] IS NOT NULL
      AND EXISTS (SELECT 1 FROM requests WHERE bucket = p_request_buckets[i] AND request_id = p_request_ids[i]);
    CONTINUE WHEN EXISTS (SELECT 1 FROM client_phones WHERE phone = p_phones[i]);
    v_id := nextval('client_no') * v_spread + p_buckets[i];
    INSERT INTO client_phones (phone, bucket, client_id) VALUES (p_phones[i], p_buckets[i], v_id);
    -- The client who had the phone may have been deleted since it was asked above.
    IF EXISTS (SELECT 1 FROM phone_memories WHERE digest = v_phone) THEN
      RAISE serialization_failure USING MESSAGE = 'the phone was given back at this moment';
    END IF;
    IF p_request_ids[i] IS NOT NULL THEN
      INSERT INTO requests (bucket, request_id, method, digest, resource_id)
      VALUES (p_request_buckets[i], p_request_ids[i], p_methods[i], p_digests[i], v_id);
    END IF;
    RETURN QUERY INSERT INTO clients
      (bucket, id, phone, operator_code, tag, timezone, window_start, window_length, attributes)
    VALUES (p_buckets[i], v_id, p_phones[i], p_operator_codes[i], p_tags[i], p_timezones[i], p_window_starts[i],
      p_window_lengths[i], p_attributes[i])
    RETURNING *;
    v_buckets := v_buckets || p_buckets[i];
    v_ids := v_ids || v_id;
  END LOOP;
  -- The last statements, in the order of buckets: each locks its bucket's number until the commit.
  FOR v_bucket IN SELECT DISTINCT b FROM unnest(v_buckets) AS b ORDER BY b LOOP
    WITH tick AS (
      UPDATE client_change_seqs SET seq = seq + 1 WHERE bucket = v_bucket RETURNING seq
    )
    INSERT INTO client_changes (bucket, seq, client_ids)
    SELECT v_bucket, t.seq, a.ids
    FROM tick t
    CROSS JOIN (
      SELECT array_agg(n.id ORDER BY n.id) AS ids FROM unnest(v_buckets, v_ids) AS n(bucket, id) WHERE n.bucket = v_bucket
    ) a;
  END LOOP;
END $$;

-- The steps of the write path, as before, in statements that each node of a cluster runs by itself.

CREATE OR REPLACE FUNCTION take_in_v1(
  p_bucket int, p_mailing_id bigint, p_batch_size int, p_ends_at timestamptz, p_reached bigint, p_ids bigint[],
  p_due_times timestamptz[]
) RETURNS bigint LANGUAGE plpgsql SET plan_cache_mode = 'force_custom_plan' AS $$
DECLARE
  v_n int;
  v_reasons smallint[];
  v_late bigint[];
  v_seq bigint;
  c record;
BEGIN
  IF p_ids[1] <= p_reached THEN
    SELECT array_agg(a.id ORDER BY a.id), array_agg(a.due_at ORDER BY a.id) INTO p_ids, p_due_times
    FROM unnest(p_ids, p_due_times) AS a(id, due_at)
    LEFT JOIN LATERAL (
      SELECT true AS found FROM messages m
      WHERE m.bucket = p_bucket AND m.mailing_id = p_mailing_id AND m.client_id = a.id LIMIT 1
    ) m ON true
    LEFT JOIN LATERAL (
      SELECT true AS found FROM unwritten w
      WHERE w.bucket = p_bucket AND w.mailing_id = p_mailing_id
        AND w.lowest <= a.id AND w.highest >= a.id AND a.id = ANY (w.client_ids) LIMIT 1
    ) u ON true
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
    SELECT array_agg((CASE WHEN a.due_at < p_ends_at THEN 0 WHEN p_ends_at <= now() THEN 4 ELSE 5 END)::smallint ORDER BY a.at)
      INTO v_reasons
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
  IF v_n > coalesce(cardinality(v_late), 0) THEN
    INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
    VALUES (p_bucket, p_mailing_id, 1, 0, v_n - coalesce(cardinality(v_late), 0))
    ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n, last_at = excluded.last_at;
  END IF;
  FOR c IN SELECT r.reason, count(*) AS n FROM unnest(v_reasons) AS r (reason) WHERE r.reason > 0 GROUP BY 1 ORDER BY 1 LOOP
    INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
    VALUES (p_bucket, p_mailing_id, 4, c.reason, c.n)
    ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n, last_at = excluded.last_at;
  END LOOP;
  IF v_late IS NOT NULL THEN
    INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
    VALUES (p_bucket, p_mailing_id, 1, 0, cardinality(v_late))
    ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n;
    INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
    VALUES (p_bucket, v_seq, p_mailing_id, v_late, '{4}');
  END IF;
  RETURN v_n;
END $$;

-- Adds outcomes to the counters and figures of a mailing. Most rows are there already, and updating costs half as much
-- as ON CONFLICT; the bucket's row is locked, so that nobody else adds one in between.
CREATE OR REPLACE FUNCTION count_outcomes_v1(
  p_bucket int, p_mailing_id bigint, p_n int, p_statuses smallint[], p_reasons smallint[], p_attempts smallint[],
  p_attempted smallint[], p_durations int[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_slot bigint := rate_slot(now());
  v_minute bigint := floor(extract(epoch FROM now()) / 60);
  a record;
  c record;
  f record;
  v_found int;
BEGIN
  SELECT array_agg(o.status) AS statuses, array_agg(o.reason) AS reasons, array_agg(o.attempts) AS attempts,
    array_agg(o.latency) AS latencies, array_agg(o.n) AS ns, array_agg(o.tried) AS tried INTO a
  FROM alike_v1(p_n, p_statuses, p_reasons, p_attempts, p_attempted, p_durations) o;

  SELECT array_agg(t.status) AS statuses, array_agg(t.reason) AS reasons, array_agg(t.n) AS ns,
    array_agg(t.tried) AS tried INTO c
  FROM (
    SELECT o.status, o.reason, sum(o.n)::bigint AS n, sum(o.tried)::bigint AS tried
    FROM unnest(a.statuses, a.reasons, a.ns, a.tried) AS o (status, reason, n, tried) WHERE o.status <> 1 GROUP BY 1, 2
    UNION ALL
    SELECT 1, 0, -coalesce(sum(o.n) FILTER (WHERE o.status <> 1), 0)::bigint,
      coalesce(sum(o.tried) FILTER (WHERE o.status = 1), 0)::bigint
    FROM unnest(a.statuses, a.ns, a.tried) AS o (status, n, tried)
  ) t;
  UPDATE mailing_counts k SET n = k.n + t.n, attempts = k.attempts + t.tried, last_at = now(), slot = v_slot,
    slot_n = CASE WHEN k.slot = v_slot THEN k.slot_n + t.n ELSE t.n END,
    before_n = CASE WHEN k.slot = v_slot THEN k.before_n WHEN v_slot - k.slot = 1 THEN k.slot_n ELSE 0 END
  FROM unnest(c.statuses, c.reasons, c.ns, c.tried) AS t (status, reason, n, tried)
  WHERE k.bucket = p_bucket AND k.mailing_id = p_mailing_id AND k.status = t.status AND k.reason = t.reason;
  GET DIAGNOSTICS v_found = ROW_COUNT;
  IF v_found < cardinality(c.ns) THEN
    FOR i IN 1 .. cardinality(c.ns) LOOP
      INSERT INTO mailing_counts (bucket, mailing_id, status, reason, n, attempts, slot, slot_n)
      VALUES (p_bucket, p_mailing_id, c.statuses[i], c.reasons[i], c.ns[i], c.tried[i], v_slot, c.ns[i])
      ON CONFLICT DO NOTHING;
    END LOOP;
  END IF;

  SELECT array_agg(t.kind) AS kinds, array_agg(t.key) AS keys, array_agg(t.n) AS ns INTO f
  FROM (
    SELECT g.kind, g.key, sum(o.n)::bigint AS n
    FROM unnest(a.statuses, a.attempts, a.latencies, a.ns) AS o (status, attempts, latency, n)
    CROSS JOIN LATERAL (VALUES
      (1::smallint, o.attempts::bigint, o.status <> 1),
      (2, o.latency::bigint, o.latency IS NOT NULL),
      (3, v_minute, o.status = 2),
      (4, v_minute, o.status = 3)
    ) AS g (kind, key, counts)
    WHERE g.counts
    GROUP BY g.kind, g.key
  ) t;
  UPDATE mailing_figures g SET n = g.n + t.n
  FROM unnest(f.kinds, f.keys, f.ns) AS t (kind, key, n)
  WHERE g.bucket = p_bucket AND g.mailing_id = p_mailing_id AND g.kind = t.kind AND g.key = t.key;
  GET DIAGNOSTICS v_found = ROW_COUNT;
  IF v_found < cardinality(f.ns) THEN
    FOR i IN 1 .. cardinality(f.ns) LOOP
      INSERT INTO mailing_figures (bucket, mailing_id, kind, key, n)
      VALUES (p_bucket, p_mailing_id, f.kinds[i], f.keys[i], f.ns[i])
      ON CONFLICT DO NOTHING;
    END LOOP;
  END IF;
END $$;

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
  m record;
BEGIN
  FOR b IN
    WITH picked AS (
      SELECT t.no, t.holder FROM batches t
      WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.due_at <= now() AND t.lease_until <= now()
        AND t.no <> ALL (p_held)
        AND EXISTS (
          SELECT 1 FROM mailings g
          WHERE g.id = p_mailing_id AND g.version = p_version AND g.state = p_state
            AND (g.state IN (2, 5) OR g.ends_at <= now())
        )
        AND NOT EXISTS (SELECT 1 FROM dispatch_settings WHERE stopped)
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
      SELECT array_agg(t.client_id) AS ids, array_agg(t.attempts) AS attempts, array_agg(t.forgiven) AS forgiven,
        array_agg(t.maybe_sent) AS maybe_sent, array_agg(t.created_at) AS created, array_agg(t.due_at) AS due INTO m
      FROM pending_rows_v1(p_bucket, p_mailing_id, b.client_ids) t;
      RETURN QUERY
      SELECT b.no, b.fence, b.doubtful, now(), b.change_no, array_agg(r.client_id), array_agg(r.attempts),
        array_agg(r.uncounted), array_agg(r.maybe_sent), array_agg(r.phone), array_agg(r.skip_reason),
        array_agg(r.opens_at), array_agg(r.closes_in), array_agg(r.overdue),
        array_agg(r.operator_code) FILTER (WHERE p_with_values), array_agg(r.tag) FILTER (WHERE p_with_values),
        array_agg(r.timezone) FILTER (WHERE p_with_values), array_agg(r.attributes) FILTER (WHERE p_with_values),
        NULL::bigint[]
      FROM (
        SELECT p.client_id, p.attempts, coalesce(p.forgiven, 0::smallint) AS uncounted, p.maybe_sent IS TRUE AS maybe_sent,
          p.created_at < now() - interval '1 day' AS overdue, c.phone, c.operator_code, c.tag, c.timezone,
          c.attributes,
          skip_reason_v1(c.opted_out, p.client_id, c.tag, c.operator_code, c.timezone, c.attributes, p_tags,
            p_operator_codes, p_timezones, p_attributes, p_chosen_ids) AS skip_reason,
          CASE WHEN c.window_start IS NOT NULL
            THEN nullif(window_opens_at(c.timezone, c.window_start, c.window_length, p.due), now())
            ELSE nullif(p.due, now()) END AS opens_at,
          CASE WHEN c.window_start IS NOT NULL THEN extract(
            epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now()
          )::float8 END AS closes_in
        FROM (
          -- What was due at once, and a retry further ahead than it can be, are due: the clock was set back since.
          SELECT t.client_id, t.attempts, t.forgiven, t.maybe_sent, t.created_at,
            CASE WHEN t.due_at > t.created_at AND t.due_at <= now() + p_max_backoff + interval '5 s'
              THEN greatest(t.due_at, now()) ELSE now() END AS due
          FROM unnest(m.ids, m.attempts, m.forgiven, m.maybe_sent, m.created, m.due)
            AS t (client_id, attempts, forgiven, maybe_sent, created_at, due_at)
        ) p
        -- The LIMIT makes it a look-up of one client after the other, by the key.
        LEFT JOIN LATERAL (SELECT * FROM clients WHERE bucket = p_bucket AND id = p.client_id LIMIT 1) c ON true
      ) r;
    END IF;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION settle_rows_v1(
  p_bucket int, p_mailing_id bigint, p_doubtful boolean, INOUT p_client_ids bigint[], p_attempts_before smallint[],
  INOUT p_statuses smallint[], INOUT p_reasons smallint[], INOUT p_attempted smallint[], p_uncounted smallint[],
  p_maybe_sent boolean[], p_endpoint_statuses smallint[], p_endpoint_codes bigint[], INOUT p_durations int[],
  p_due_times timestamptz[], OUT attempts smallint[]
) LANGUAGE plpgsql SET plan_cache_mode = 'force_custom_plan' AS $$
DECLARE
  v_now timestamptz := now();
BEGIN
  -- entry_of reads the arrays: the plan of a join would depend on statistics that a new mailing does not have.
  WITH settled AS (
    UPDATE messages m SET
      status = entry_of(p_statuses, m.client_id, p_client_ids),
      reason = entry_of(p_reasons, m.client_id, p_client_ids),
      attempts = m.attempts + entry_of(p_attempted, m.client_id, p_client_ids),
      forgiven = nullif(coalesce(m.forgiven, 0) + entry_of(p_uncounted, m.client_id, p_client_ids), 0),
      -- Of what an earlier holder may have sent, too.
      maybe_sent = CASE WHEN entry_of(p_maybe_sent, m.client_id, p_client_ids) OR p_doubtful THEN true
        ELSE m.maybe_sent END,
      endpoint_status = entry_of(p_endpoint_statuses, m.client_id, p_client_ids),
      endpoint_code = entry_of(p_endpoint_codes, m.client_id, p_client_ids),
      duration_ms = entry_of(p_durations, m.client_id, p_client_ids),
      due_at = coalesce(entry_of(p_due_times, m.client_id, p_client_ids), m.due_at),
      settled_at = CASE WHEN entry_of(p_statuses, m.client_id, p_client_ids) <> 1 THEN v_now END
    WHERE m.bucket = p_bucket AND m.mailing_id = p_mailing_id AND m.client_id = ANY (p_client_ids)
      AND m.client_id BETWEEN p_client_ids[1] AND p_client_ids[cardinality(p_client_ids)] AND m.status = 1
      AND m.attempts = entry_of(p_attempts_before, m.client_id, p_client_ids)
    RETURNING m.client_id, m.status, m.reason, m.attempts, m.duration_ms,
      entry_of(p_attempted, m.client_id, p_client_ids) AS attempted
  )
  SELECT array_agg(s.client_id), array_agg(s.status), array_agg(s.reason), array_agg(s.attempted),
    array_agg(s.duration_ms), array_agg(s.attempts)
  INTO p_client_ids, p_statuses, p_reasons, p_attempted, p_durations, attempts FROM settled s;
END $$;

CREATE OR REPLACE FUNCTION settle_v1(
  p_bucket int, p_mailing_id bigint, p_batch_no bigint, p_fence int, p_done boolean, p_kept bigint[], p_endpoint text,
  p_client_ids bigint[], p_attempts_before smallint[], p_statuses smallint[], p_reasons smallint[],
  p_attempted smallint[], p_uncounted smallint[], p_maybe_sent boolean[], p_endpoint_statuses smallint[],
  p_endpoint_codes bigint[], p_durations int[], p_due_times timestamptz[],
  p_failure_ids bigint[], p_failure_numbers smallint[], p_failure_times timestamptz[], p_failure_classes smallint[],
  p_failure_statuses smallint[], p_failure_codes bigint[], p_failure_durations int[], p_failure_excerpts text[],
  p_event_levels smallint[], p_event_names text[], p_event_texts text[], p_event_client_ids bigint[],
  p_event_details text[]
) RETURNS TABLE (held boolean, settled bigint) LANGUAGE plpgsql SET plan_cache_mode = 'force_generic_plan' AS $$
DECLARE
  b record;
  s record;
  v_left bigint[] := p_kept;
  v_seq bigint;
  v_n int;
BEGIN
  SELECT t.fresh, t.doubtful, t.client_ids, t.created_at, t.due_at INTO b FROM batches t
  WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.no = p_batch_no AND t.fence = p_fence
  FOR UPDATE;
  IF NOT FOUND THEN
    RETURN QUERY SELECT false, 0::bigint;
    RETURN;
  END IF;

  IF b.fresh THEN
    v_left := '{}';
    IF p_client_ids <> b.client_ids THEN
      v_left := without_v1(b.client_ids, p_client_ids);
      IF cardinality(v_left) + cardinality(p_client_ids) > cardinality(b.client_ids) THEN
        SELECT coalesce(array_agg(i.id ORDER BY i.id), '{}') AS client_ids,
          array_agg(entry_of(p_statuses, i.id, p_client_ids) ORDER BY i.id) AS statuses,
          array_agg(entry_of(p_reasons, i.id, p_client_ids) ORDER BY i.id) AS reasons,
          array_agg(entry_of(p_attempted, i.id, p_client_ids) ORDER BY i.id) AS attempted,
          array_agg(entry_of(p_uncounted, i.id, p_client_ids) ORDER BY i.id) AS uncounted,
          array_agg(entry_of(p_maybe_sent, i.id, p_client_ids) ORDER BY i.id) AS maybe_sent,
          array_agg(entry_of(p_endpoint_statuses, i.id, p_client_ids) ORDER BY i.id) AS endpoint_statuses,
          array_agg(entry_of(p_endpoint_codes, i.id, p_client_ids) ORDER BY i.id) AS endpoint_codes,
          array_agg(entry_of(p_durations, i.id, p_client_ids) ORDER BY i.id) AS durations,
          array_agg(entry_of(p_due_times, i.id, p_client_ids) ORDER BY i.id) AS due_times
        INTO s FROM (SELECT unnest(p_client_ids) INTERSECT SELECT unnest(b.client_ids)) AS i(id);
        p_client_ids := s.client_ids; p_statuses := s.statuses; p_reasons := s.reasons; p_attempted := s.attempted;
        p_uncounted := s.uncounted; p_maybe_sent := s.maybe_sent; p_endpoint_statuses := s.endpoint_statuses;
        p_endpoint_codes := s.endpoint_codes; p_durations := s.durations; p_due_times := s.due_times;
      END IF;
    END IF;
  END IF;
  IF p_done AND v_left = '{}' THEN
    DELETE FROM batches t WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.no = p_batch_no;
  ELSIF p_done THEN
    -- The fence is incremented, so that the same call, repeated because its answer was lost, finds nothing. It stays
    -- marked: what an earlier holder sent is no better known for that.
    UPDATE batches t SET client_ids = v_left, fence = t.fence + 1, lease_until = '-infinity', holder = NULL
    WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.no = p_batch_no;
  ELSIF b.fresh THEN
    UPDATE batches t SET client_ids = v_left
    WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND t.no = p_batch_no;
  END IF;
  IF p_client_ids = '{}' THEN
    RETURN QUERY SELECT true, 0::bigint;
    RETURN;
  END IF;

  -- The bucket's row is locked before its messages and counters. It gives a number to what ends.
  UPDATE buckets t SET journal_seq = t.journal_seq + (1 <> ANY (p_statuses))::int WHERE t.bucket = p_bucket
  RETURNING t.journal_seq INTO v_seq;
  IF b.fresh THEN
    PERFORM settle_fresh_v1(p_bucket, p_mailing_id, p_batch_no, b.doubtful, b.created_at, b.due_at, p_client_ids,
      p_statuses, p_reasons, p_attempted, p_uncounted, p_maybe_sent, p_endpoint_statuses, p_endpoint_codes,
      p_durations, p_due_times);
    SELECT p_client_ids, p_statuses, p_reasons, p_attempted, p_durations, p_attempted AS attempts INTO s;
  ELSE
    SELECT r.* INTO s FROM settle_rows_v1(p_bucket, p_mailing_id, b.doubtful, p_client_ids, p_attempts_before,
      p_statuses, p_reasons, p_attempted, p_uncounted, p_maybe_sent, p_endpoint_statuses, p_endpoint_codes,
      p_durations, p_due_times) r;
  END IF;
  v_n := coalesce(cardinality(s.p_client_ids), 0);
  IF 1 = ANY (p_statuses) THEN
    -- A retry further ahead than it can be was computed from a clock that was set back since.
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at, created_at, fresh)
    SELECT p_bucket, p_mailing_id, nextval('batch_no'), array_agg(r.client_id ORDER BY r.client_id), r.due_at, now(),
      b.created_at, r.fresh
    FROM (
      SELECT o.client_id, b.fresh AND NOT (o.attempted > 0 OR o.maybe_sent OR b.doubtful) AS fresh,
        CASE WHEN o.attempted > 0
          THEN least(o.due_at, now() + (SELECT max_backoff + interval '5 s' FROM mailings WHERE id = p_mailing_id))
          ELSE coalesce(o.due_at, CASE WHEN b.fresh THEN b.due_at END) END AS due_at
      FROM (
        SELECT i.id AS client_id, entry_of(p_statuses, i.id, p_client_ids) AS status,
          entry_of(p_attempted, i.id, p_client_ids) AS attempted,
          entry_of(p_maybe_sent, i.id, p_client_ids) AS maybe_sent,
          entry_of(p_due_times, i.id, p_client_ids) AS due_at
        FROM unnest(s.p_client_ids) AS i(id)
      ) o
      WHERE o.status = 1
    ) r
    WHERE r.due_at IS NOT NULL
    GROUP BY r.due_at, r.fresh;
  END IF;
  IF p_failure_ids <> '{}' THEN
    INSERT INTO attempts (bucket, mailing_id, client_id, number, at, endpoint, error_class, endpoint_status,
      endpoint_code, duration_ms, response_excerpt)
    SELECT p_bucket, p_mailing_id, f.client_id, f.number, f.at, p_endpoint, f.error_class, f.endpoint_status,
      f.endpoint_code, f.duration_ms, f.excerpt
    FROM unnest(p_failure_ids, p_failure_numbers, p_failure_times, p_failure_classes, p_failure_statuses,
      p_failure_codes, p_failure_durations, p_failure_excerpts)
      AS f(client_id, number, at, error_class, endpoint_status, endpoint_code, duration_ms, excerpt)
    ON CONFLICT DO NOTHING;
  END IF;
  IF v_n > 0 THEN
    PERFORM count_outcomes_v1(p_bucket, p_mailing_id, v_n, s.p_statuses, s.p_reasons, s.attempts, s.p_attempted,
      s.p_durations);
  END IF;
  v_n := record_changes_v1(p_bucket, p_mailing_id, v_seq, s.p_client_ids, s.p_statuses);
  IF v_n = 0 AND 1 <> ANY (p_statuses) THEN
    -- Nothing ended after all. Nobody has seen the number: the row is still locked.
    UPDATE buckets t SET journal_seq = t.journal_seq - 1 WHERE t.bucket = p_bucket;
  END IF;
  PERFORM log_events_v1(p_bucket, p_mailing_id, p_event_levels, p_event_names, p_event_texts, p_event_client_ids,
    p_event_details);
  RETURN QUERY SELECT true, v_n::bigint;
END $$;

-- Records that a mailing is about to be sent to clients, and returns those to whom it must not be: they got, or are
-- about to get, p_cap messages of other mailings within p_period. Messages that ended undelivered do not count. There
-- is one row per client, so two mailings to the same client wait for each other.
CREATE FUNCTION admit_v1(
  p_bucket int, p_mailing_id bigint, p_client_ids bigint[], p_important boolean, p_cap int, p_period interval
) RETURNS TABLE (id bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_since timestamptz := now() - p_period;
  v_new bigint[];
  v_admitted bigint[];
BEGIN
  SELECT array_agg(a.id ORDER BY a.id) INTO v_new
  FROM (SELECT DISTINCT unnest(p_client_ids) AS id) a
  LEFT JOIN LATERAL (
    SELECT true AS found FROM client_sends s WHERE s.bucket = p_bucket AND s.client_id = a.id LIMIT 1
  ) s ON true
  WHERE s.found IS NULL;
  IF v_new IS NOT NULL THEN
    INSERT INTO client_sends (bucket, client_id, mailing_ids, sent_at)
    SELECT p_bucket, i.id, '{}', '{}' FROM unnest(v_new) AS i (id)
    ON CONFLICT DO NOTHING;
  END IF;
  PERFORM 1 FROM client_sends s WHERE s.bucket = p_bucket AND s.client_id = ANY (p_client_ids) ORDER BY s.client_id
  FOR UPDATE;
  WITH admitted AS (
    UPDATE client_sends s
    SET mailing_ids = ARRAY(
        SELECT o.id FROM unnest(s.mailing_ids, s.sent_at) AS o (id, at)
        WHERE o.at > v_since AND o.id <> p_mailing_id ORDER BY o.at
      ) || p_mailing_id,
      sent_at = ARRAY(
        SELECT o.at FROM unnest(s.mailing_ids, s.sent_at) AS o (id, at)
        WHERE o.at > v_since AND o.id <> p_mailing_id ORDER BY o.at
      ) || now()
    WHERE s.bucket = p_bucket AND s.client_id = ANY (p_client_ids) AND (p_important OR p_cap > (
      SELECT count(*) FROM unnest(s.mailing_ids, s.sent_at) AS o (id, at)
      WHERE o.at > v_since AND o.id <> p_mailing_id AND NOT EXISTS (
        SELECT 1 FROM messages m
        WHERE m.bucket = p_bucket AND m.mailing_id = o.id AND m.client_id = s.client_id AND m.status IN (3, 4, 5, 6)
      ) AND NOT EXISTS (
        SELECT 1 FROM blocks k
        WHERE k.bucket = p_bucket AND k.mailing_id = o.id
          AND k.lowest <= s.client_id AND k.highest >= s.client_id AND s.client_id = ANY (k.client_ids)
      )
    ))
    RETURNING s.client_id
  )
  SELECT array_agg(a.client_id) INTO v_admitted FROM admitted a;
  RETURN QUERY SELECT unnest(p_client_ids) EXCEPT SELECT unnest(v_admitted);
END $$;

-- migrate:down

-- The replaced functions stay: earlier releases call them as well.
DROP FUNCTION admit_v1(int, bigint, bigint[], boolean, int, interval);
DROP FUNCTION list_messages_v1(int, bigint, bigint, int, smallint[], smallint[], boolean);
DROP FUNCTION ints_of(text);
DROP FUNCTION bigints_of(text);
DROP VIEW unwritten;
