-- The steps of the write path in statements whose plans every node keeps: a node plans anew for each call what joins, has a
-- subquery, or calls what is computed only once, and hands each such statement on as a text with all its arrays in it. A
-- statement about one table that is given plain values is planned once.

-- migrate:up

-- Those of some clients, in columns, who have no message of a mailing yet. ONE statement looks who is in already: what
-- moves from a batch to a row meanwhile is seen in one of them.
CREATE OR REPLACE FUNCTION not_taken_in_v1(
  p_bucket int, p_mailing_id bigint, p_ids bigint[], p_due_times timestamptz[], OUT ids bigint[],
  OUT due_times timestamptz[]
) LANGUAGE plpgsql STABLE SET plan_cache_mode = 'force_custom_plan' AS $$
BEGIN
  SELECT array_agg(a.id ORDER BY a.id), array_agg(a.due_at ORDER BY a.id) INTO ids, due_times
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
END $$;

-- As before.
CREATE OR REPLACE FUNCTION take_in_v1(
  p_bucket int, p_mailing_id bigint, p_batch_size int, p_ends_at timestamptz, p_reached bigint, p_ids bigint[],
  p_due_times timestamptz[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  v_n int;
  v_pending int;
  v_reasons smallint[];
  v_late bigint[];
  v_no bigint;
  v_part bigint[];
  v_due_at timestamptz;
  v_seq bigint;
  c record;
BEGIN
  IF p_ids[1] <= p_reached THEN
    SELECT n.ids, n.due_times INTO p_ids, p_due_times
    FROM not_taken_in_v1(p_bucket, p_mailing_id, p_ids, p_due_times) n;
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
    v_due_at := p_due_times[1];
    FOR i IN 0 .. (v_n - 1) / p_batch_size LOOP
      v_no := nextval('batch_no');
      v_part := p_ids[i * p_batch_size + 1 : (i + 1) * p_batch_size];
      INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at, created_at, fresh)
      VALUES (p_bucket, p_mailing_id, v_no, v_part, v_due_at, now(), now(), true);
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
  v_pending := v_n - coalesce(cardinality(v_late), 0);
  IF v_pending > 0 THEN
    INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
    VALUES (p_bucket, p_mailing_id, 1, 0, v_pending)
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

-- Adds outcomes to the counters and figures of a mailing, row by row. The bucket's row is locked, so that nobody else adds
-- one in between.
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
BEGIN
  SELECT array_agg(o.status) AS statuses, array_agg(o.reason) AS reasons, array_agg(o.attempts) AS attempts,
    array_agg(o.latency) AS latencies, array_agg(o.n) AS ns, array_agg(o.tried) AS tried INTO a
  FROM alike_v1(p_n, p_statuses, p_reasons, p_attempts, p_attempted, p_durations) o;

  FOR c IN
    SELECT o.status, o.reason, sum(o.n)::bigint AS n, sum(o.tried)::bigint AS tried
    FROM unnest(a.statuses, a.reasons, a.ns, a.tried) AS o (status, reason, n, tried) WHERE o.status <> 1 GROUP BY 1, 2
    UNION ALL
    SELECT 1, 0, -coalesce(sum(o.n) FILTER (WHERE o.status <> 1), 0)::bigint,
      coalesce(sum(o.tried) FILTER (WHERE o.status = 1), 0)::bigint
    FROM unnest(a.statuses, a.ns, a.tried) AS o (status, n, tried)
    ORDER BY 1, 2
  LOOP
    UPDATE mailing_counts k SET n = k.n + c.n, attempts = k.attempts + c.tried, last_at = now(), slot = v_slot,
      slot_n = CASE WHEN k.slot = v_slot THEN k.slot_n + c.n ELSE c.n END,
      before_n = CASE WHEN k.slot = v_slot THEN k.before_n WHEN v_slot - k.slot = 1 THEN k.slot_n ELSE 0 END
    WHERE k.bucket = p_bucket AND k.mailing_id = p_mailing_id AND k.status = c.status AND k.reason = c.reason;
    IF NOT FOUND THEN
      INSERT INTO mailing_counts (bucket, mailing_id, status, reason, n, attempts, slot, slot_n)
      VALUES (p_bucket, p_mailing_id, c.status, c.reason, c.n, c.tried, v_slot, c.n);
    END IF;
  END LOOP;

  FOR f IN
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
    ORDER BY g.kind, g.key
  LOOP
    UPDATE mailing_figures g SET n = g.n + f.n
    WHERE g.bucket = p_bucket AND g.mailing_id = p_mailing_id AND g.kind = f.kind AND g.key = f.key;
    IF NOT FOUND THEN
      INSERT INTO mailing_figures (bucket, mailing_id, kind, key, n)
      VALUES (p_bucket, p_mailing_id, f.kind, f.key, f.n);
    END IF;
  END LOOP;
END $$;

-- As before; the bucket's row beside the values makes it one statement of the node that has both.
CREATE OR REPLACE FUNCTION settle_fresh_v1(
  p_bucket int, p_mailing_id bigint, p_batch_no bigint, p_doubtful boolean, p_created_at timestamptz,
  p_due_at timestamptz, p_client_ids bigint[], p_statuses smallint[], p_reasons smallint[], p_attempted smallint[],
  p_uncounted smallint[], p_maybe_sent boolean[], p_endpoint_statuses smallint[], p_endpoint_codes bigint[],
  p_durations int[], p_due_times timestamptz[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_n int := cardinality(p_client_ids);
  v_no bigint;
  v_status smallint;
  v_reason smallint;
BEGIN
  IF v_n > 1 AND p_statuses[1] IN (4, 5, 6) AND cardinality(p_statuses) = 1 AND cardinality(p_reasons) = 1
    AND p_attempted = '{0}' AND p_maybe_sent = '{f}' AND NOT p_doubtful
  THEN
    v_no := nextval('batch_no');
    v_status := p_statuses[1];
    v_reason := p_reasons[1];
    INSERT INTO blocks (bucket, mailing_id, no, client_ids, created_at, due_at, settled_at, status, reason)
    VALUES (p_bucket, p_mailing_id, v_no, p_client_ids, p_created_at, p_due_at, now(), v_status, v_reason);
    RETURN;
  END IF;
  IF p_statuses[1] <> 1 AND cardinality(p_statuses || p_reasons || p_attempted || p_uncounted || p_endpoint_statuses) = 5
    AND cardinality(p_endpoint_codes) = 1 AND p_maybe_sent = '{f}' AND NOT p_doubtful
  THEN
    -- The usual batch: all alike, but for how long each took. It saves a tenth.
    INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, settled_at, endpoint_code, duration_ms,
      status, reason, attempts, endpoint_status, forgiven)
    SELECT t.bucket, p_mailing_id, o.client_id, p_created_at, p_due_at, now(), p_endpoint_codes[1], o.duration,
      p_statuses[1], p_reasons[1], p_attempted[1], p_endpoint_statuses[1], nullif(p_uncounted[1], 0)
    FROM buckets t
    CROSS JOIN (SELECT unnest(p_client_ids) AS client_id, unnest(spread(p_durations, v_n)) AS duration OFFSET 0) o
    WHERE t.bucket = p_bucket;
    RETURN;
  END IF;
  INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, settled_at, endpoint_code, duration_ms,
    status, reason, attempts, endpoint_status, forgiven, maybe_sent)
  SELECT t.bucket, p_mailing_id, o.client_id, p_created_at, coalesce(o.due_at, p_due_at),
    CASE WHEN o.status <> 1 THEN now() END, o.endpoint_code, o.duration, o.status, o.reason, o.attempted,
    o.endpoint_status, nullif(o.uncounted, 0), CASE WHEN o.maybe_sent OR p_doubtful THEN true END
  FROM buckets t
  CROSS JOIN (
    SELECT unnest(p_client_ids) AS client_id, unnest(spread(p_statuses, v_n)) AS status,
      unnest(spread(p_reasons, v_n)) AS reason, unnest(spread(p_attempted, v_n)) AS attempted,
      unnest(spread(p_uncounted, v_n)) AS uncounted, unnest(spread(p_maybe_sent, v_n)) AS maybe_sent,
      unnest(spread(p_endpoint_statuses, v_n)) AS endpoint_status,
      unnest(spread(p_endpoint_codes, v_n)) AS endpoint_code, unnest(spread(p_durations, v_n)) AS duration,
      unnest(spread(p_due_times, v_n)) AS due_at
    OFFSET 0
  ) o
  WHERE t.bucket = p_bucket AND (o.status <> 1 OR o.attempted > 0 OR o.maybe_sent OR p_doubtful);
END $$;

-- As before.
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
  t record;
  g record;
  b record;
  m record;
  v_stopped boolean;
  v_change_no bigint;
  v_ids bigint[];
  v_lowest bigint;
  v_highest bigint;
BEGIN
  FOR t IN
    SELECT p.no, p.holder IS NOT NULL AS reclaimed FROM batches p
    WHERE p.bucket = p_bucket AND p.mailing_id = p_mailing_id AND p.due_at <= now() AND p.lease_until <= now()
      AND p.no <> ALL (p_held)
    ORDER BY p.no LIMIT p_most
    FOR UPDATE SKIP LOCKED
  LOOP
    -- Asked behind the lock, so that what was paused or stopped until then is not leased.
    PERFORM 1 FROM dispatch_settings WHERE stopped;
    v_stopped := FOUND;
    SELECT k.version, k.state, k.ends_at INTO g FROM mailings k WHERE k.id = p_mailing_id;
    IF v_stopped OR g.version IS DISTINCT FROM p_version OR g.state <> p_state
      OR NOT (g.state IN (2, 5) OR coalesce(g.ends_at <= now(), false))
    THEN
      RETURN;
    END IF;
    UPDATE batches u
    SET fence = u.fence + 1, lease_until = now() + p_lease, leased_at = now(), holder = p_replica_id,
      doubtful = u.doubtful OR t.reclaimed
    WHERE u.bucket = p_bucket AND u.mailing_id = p_mailing_id AND u.no = t.no
    RETURNING u.no, u.fence, u.client_ids, u.lowest, u.highest, u.doubtful, u.fresh, u.created_at INTO b;
    SELECT s.seq INTO v_change_no FROM client_change_seqs s WHERE s.bucket = p_bucket;
    IF b.fresh THEN
      v_ids := b.client_ids;
      v_lowest := b.lowest;
      v_highest := b.highest;
      -- The ends beside the array keep the index range tight, whatever the planner estimates.
      SELECT array_agg(c.id) AS ids, array_agg(c.phone) AS phones,
        array_agg(skip_reason_v1(c.opted_out, c.id, c.tag, c.operator_code, c.timezone, c.attributes, p_tags,
          p_operator_codes, p_timezones, p_attributes, p_chosen_ids)) AS skip_reasons,
        array_agg(CASE WHEN c.window_start IS NOT NULL
          THEN nullif(window_opens_at(c.timezone, c.window_start, c.window_length, now()), now()) END) AS opens_at,
        array_agg(CASE WHEN c.window_start IS NOT NULL THEN extract(
            epoch FROM window_closes_at(c.timezone, c.window_start, c.window_length, now()) - now()
          )::float8 END) AS closes_in,
        array_agg(c.operator_code) FILTER (WHERE p_with_values) AS operator_codes,
        array_agg(c.tag) FILTER (WHERE p_with_values) AS tags,
        array_agg(c.timezone) FILTER (WHERE p_with_values) AS timezones,
        array_agg(c.attributes) FILTER (WHERE p_with_values) AS attributes INTO m
      FROM clients c
      WHERE c.bucket = p_bucket AND c.id = ANY (v_ids) AND c.id BETWEEN v_lowest AND v_highest;
      IF m.ids IS DISTINCT FROM v_ids THEN
        -- Some are gone, or they were read in another order than that of their ids.
        SELECT array_agg(r.id ORDER BY r.id) AS ids, array_agg(r.phone ORDER BY r.id) AS phones,
          array_agg(r.skip_reason ORDER BY r.id) AS skip_reasons, array_agg(r.opens_at ORDER BY r.id) AS opens_at,
          array_agg(r.closes_in ORDER BY r.id) AS closes_in,
          array_agg(r.operator_code ORDER BY r.id) FILTER (WHERE p_with_values) AS operator_codes,
          array_agg(r.tag ORDER BY r.id) FILTER (WHERE p_with_values) AS tags,
          array_agg(r.timezone ORDER BY r.id) FILTER (WHERE p_with_values) AS timezones,
          array_agg(r.attributes ORDER BY r.id) FILTER (WHERE p_with_values) AS attributes INTO m
        FROM unnest(m.ids, m.phones, m.skip_reasons, m.opens_at, m.closes_in, m.operator_codes, m.tags, m.timezones,
          m.attributes) AS r(id, phone, skip_reason, opens_at, closes_in, operator_code, tag, timezone, attributes);
      END IF;
      RETURN QUERY
      SELECT b.no, b.fence, b.doubtful, now(), v_change_no, m.ids, NULL::smallint[], NULL::smallint[],
        NULL::boolean[], m.phones, CASE WHEN 0 <> ANY (m.skip_reasons) THEN m.skip_reasons END,
        CASE WHEN array_remove(m.opens_at, NULL) <> '{}' THEN m.opens_at END,
        CASE WHEN array_remove(m.closes_in, NULL) <> '{}' THEN m.closes_in END,
        CASE WHEN b.created_at < now() - interval '1 day' THEN array_fill(true, ARRAY[cardinality(m.ids)]) END,
        m.operator_codes, m.tags, m.timezones, m.attributes,
        CASE WHEN m.ids IS DISTINCT FROM v_ids THEN without_v1(v_ids, m.ids) END;
    ELSE
      SELECT array_agg(t.client_id) AS ids, array_agg(t.attempts) AS attempts, array_agg(t.forgiven) AS forgiven,
        array_agg(t.maybe_sent) AS maybe_sent, array_agg(t.created_at) AS created, array_agg(t.due_at) AS due INTO m
      FROM pending_rows_v1(p_bucket, p_mailing_id, b.client_ids) t;
      RETURN QUERY
      SELECT b.no, b.fence, b.doubtful, now(), v_change_no, array_agg(r.client_id), array_agg(r.attempts),
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

-- As before.
CREATE OR REPLACE FUNCTION requeue_v1(
  p_bucket int, p_mailing_id bigint, p_statuses smallint[], p_settled_until timestamptz, p_after bigint, p_most int,
  p_batch_size int, OUT requeued int, OUT last_id bigint
) LANGUAGE plpgsql AS $$
DECLARE
  f record;
  v_no bigint;
  v_part bigint[];
  v_seq bigint;
  v_found int;
BEGIN
  SELECT array_agg(n.client_id ORDER BY n.client_id) AS ids, array_agg(n.status ORDER BY n.client_id) AS statuses,
    array_agg(n.reason ORDER BY n.client_id) AS reasons, array_agg(n.attempts ORDER BY n.client_id) AS attempts INTO f
  FROM (
    SELECT m.client_id, m.status, m.reason, m.attempts FROM messages m
    WHERE m.bucket = p_bucket AND m.mailing_id = p_mailing_id AND m.client_id > p_after
      AND m.status = ANY (p_statuses) AND m.settled_at <= p_settled_until
    ORDER BY m.client_id
    LIMIT p_most
  ) n;
  requeued := coalesce(cardinality(f.ids), 0);
  IF requeued = 0 THEN
    RETURN;
  END IF;
  last_id := CASE WHEN requeued = p_most THEN f.ids[requeued] END;

  -- A batch in progress still names the messages that it has settled. No message may be in two batches: if the holder
  -- died, both would send it.
  DELETE FROM batches t
  WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND NOT t.fresh AND t.client_ids <@ f.ids;
  UPDATE batches t
  SET client_ids = ARRAY(SELECT i FROM unnest(t.client_ids) AS i WHERE i <> ALL (f.ids) ORDER BY i)
  WHERE t.bucket = p_bucket AND t.mailing_id = p_mailing_id AND NOT t.fresh AND t.client_ids && f.ids;
  FOR i IN 0 .. (requeued - 1) / p_batch_size LOOP
    v_no := nextval('batch_no');
    v_part := f.ids[i * p_batch_size + 1 : (i + 1) * p_batch_size];
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at)
    VALUES (p_bucket, p_mailing_id, v_no, v_part, now(), now());
  END LOOP;

  UPDATE buckets t SET journal_seq = t.journal_seq + 1 WHERE t.bucket = p_bucket RETURNING t.journal_seq INTO v_seq;
  -- The ends beside the array keep the index range tight. The columns of the last attempt stay.
  UPDATE messages m
  SET status = 1, reason = CASE WHEN m.attempts > 0 THEN 3 ELSE 0 END, forgiven = nullif(m.attempts, 0),
    maybe_sent = CASE WHEN m.status = 7 THEN true ELSE m.maybe_sent END, settled_at = NULL, due_at = now()
  WHERE m.bucket = p_bucket AND m.mailing_id = p_mailing_id AND m.client_id BETWEEN f.ids[1] AND f.ids[requeued]
    AND m.client_id = ANY (f.ids) AND m.status = ANY (p_statuses);
  GET DIAGNOSTICS v_found = ROW_COUNT;
  IF v_found <> requeued THEN
    RAISE serialization_failure USING MESSAGE = 'messages were changed while they were put back';
  END IF;
  PERFORM move_to_pending_v1(p_bucket, p_mailing_id, v_seq, f.ids, f.statuses, f.reasons, f.attempts);
END $$;

-- migrate:down

-- The replaced functions stay, with the one that they call: earlier releases call them as well.
