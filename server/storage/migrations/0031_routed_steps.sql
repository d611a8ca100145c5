-- Retries as steps of one bucket, and clients who were chosen one by one looked up where their bucket is.

-- migrate:up

-- Puts the next p_most messages of a bucket behind the client p_after back to PENDING that have one of p_statuses and
-- were settled at p_settled_until or before: in new batches of p_batch_size, with attempts that no longer count. The
-- mailing is locked by the caller, so that nobody else changes them. `last_id` is the last of them, NULL when there are no
-- more. Batches are locked first; then come the bucket's row, its messages and its counters, as everywhere.
CREATE FUNCTION requeue_v1(
  p_bucket int, p_mailing_id bigint, p_statuses smallint[], p_settled_until timestamptz, p_after bigint, p_most int,
  p_batch_size int, OUT requeued int, OUT last_id bigint
) LANGUAGE plpgsql AS $$
DECLARE
  f record;
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
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at)
    VALUES (p_bucket, p_mailing_id, nextval('batch_no'), f.ids[i * p_batch_size + 1 : (i + 1) * p_batch_size], now(),
      now());
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

-- The same for messages that ended untried, in blocks: the next p_most of these become fresh batches again.
CREATE FUNCTION requeue_blocks_v1(
  p_bucket int, p_mailing_id bigint, p_statuses smallint[], p_settled_until timestamptz, p_most int, OUT requeued int
) LANGUAGE plpgsql AS $$
DECLARE
  v_nos bigint[];
  f record;
  v_seq bigint;
BEGIN
  SELECT array_agg(n.no) INTO v_nos
  FROM (
    SELECT k.no FROM blocks k
    WHERE k.bucket = p_bucket AND k.mailing_id = p_mailing_id AND k.status = ANY (p_statuses)
      AND k.settled_at <= p_settled_until
    ORDER BY k.no LIMIT p_most
  ) n;
  SELECT array_agg(i.id ORDER BY i.id) AS ids, array_agg(k.status ORDER BY i.id) AS statuses,
    array_agg(k.reason ORDER BY i.id) AS reasons INTO f
  FROM blocks k CROSS JOIN LATERAL unnest(k.client_ids) AS i (id)
  WHERE k.bucket = p_bucket AND k.mailing_id = p_mailing_id AND k.no = ANY (v_nos);
  requeued := coalesce(cardinality(f.ids), 0);
  IF requeued = 0 THEN
    RETURN;
  END IF;
  INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at, created_at, fresh)
  SELECT k.bucket, k.mailing_id, k.no, k.client_ids, now(), now(), k.created_at, true FROM blocks k
  WHERE k.bucket = p_bucket AND k.mailing_id = p_mailing_id AND k.no = ANY (v_nos);
  UPDATE buckets t SET journal_seq = t.journal_seq + 1 WHERE t.bucket = p_bucket RETURNING t.journal_seq INTO v_seq;
  DELETE FROM blocks k WHERE k.bucket = p_bucket AND k.mailing_id = p_mailing_id AND k.no = ANY (v_nos);
  PERFORM move_to_pending_v1(p_bucket, p_mailing_id, v_seq, f.ids, f.statuses, f.reasons, ARRAY[0::smallint]);
END $$;

-- Counts messages as PENDING which had, as columns parallel to their clients (one entry holds for all), these statuses,
-- reasons and attempts, and writes the change under a number of the bucket's change feed.
CREATE FUNCTION move_to_pending_v1(
  p_bucket int, p_mailing_id bigint, p_seq bigint, p_client_ids bigint[], p_statuses smallint[], p_reasons smallint[],
  p_attempts smallint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_n int := cardinality(p_client_ids);
BEGIN
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
  SELECT p_bucket, p_mailing_id, c.status, c.reason, c.n
  FROM (
    SELECT 1::smallint AS status, 0::smallint AS reason, v_n::bigint AS n
    UNION ALL
    SELECT o.status, o.reason, -count(*) FROM unnest(p_statuses, p_reasons) AS o (status, reason) GROUP BY 1, 2
  ) c
  ORDER BY c.status, c.reason
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n;
  INSERT INTO mailing_figures AS g (bucket, mailing_id, kind, key, n)
  SELECT p_bucket, p_mailing_id, 1, o.attempts, -count(*) FROM unnest(spread(p_attempts, v_n)) AS o (attempts)
  GROUP BY o.attempts
  ORDER BY o.attempts
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = g.n + excluded.n;
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  VALUES (p_bucket, p_seq, p_mailing_id, p_client_ids, '{1}');
END $$;

-- As before. Clients who were chosen are looked up by the key, in a plan for any arguments as well: one of the two parts
-- of the union is never run.
CREATE OR REPLACE FUNCTION expand_v2(
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
    FROM (
      (
        SELECT * FROM clients
        WHERE p_chosen_ids IS NULL AND bucket = p_bucket AND id > p_position
        ORDER BY id LIMIT p_limit
      )
      UNION ALL
      (
        SELECT * FROM clients
        WHERE p_chosen_ids IS NOT NULL AND bucket = p_bucket AND id > p_position AND id = ANY (p_chosen_ids)
        ORDER BY id LIMIT p_limit
      )
    ) c
    ORDER BY c.id
  ) s;
  SELECT n.* INTO a FROM narrow_v1(p_bucket, v.ids, v.due_times, p_condition, p_literals) n;
  v_inserted := take_in_v1(p_bucket, p_mailing_id, p_batch_size, e.ends_at, e.reached, a.ids, a.due_times);
  RETURN QUERY
  UPDATE expansions x SET last_client_id = greatest(x.last_client_id, v.last), finished = v.seen < p_limit,
    reached = CASE WHEN v.seen < p_limit THEN 9223372036854775807 ELSE greatest(x.reached, v.last) END
  WHERE x.bucket = p_bucket AND x.mailing_id = p_mailing_id
  RETURNING x.last_client_id, x.finished, v.seen, v_inserted;
END $$;

-- migrate:down

-- expand_v2 stays: earlier releases call it as well.
DROP FUNCTION requeue_v1, requeue_blocks_v1, move_to_pending_v1;
