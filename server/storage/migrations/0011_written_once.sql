-- A message's row is written once, with its outcome. Until then the message stands in a batch that is `fresh`: no
-- row exists for any of its clients. A client of a mailing is in exactly one of: a fresh batch; a row that is
-- PENDING, and one other batch; a row that has ended; a block.
-- What is on its way stays as it is: batches that are there have rows, and are not rewritten.

-- migrate:up

-- `created_at` is when the batch's messages were taken in. The ids ascend, so the ends tell who may be among them.
ALTER TABLE batches
  ADD COLUMN fresh boolean NOT NULL DEFAULT false,
  ADD COLUMN created_at timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN lowest bigint GENERATED ALWAYS AS (client_ids[1]) STORED,
  ADD COLUMN highest bigint GENERATED ALWAYS AS (client_ids[cardinality(client_ids)]) STORED;
CREATE INDEX batches_reach ON batches (bucket, mailing_id, lowest, highest) WHERE fresh;

-- Messages that ended alike and untried: one row for all of a batch that was cancelled or expired.
CREATE TABLE blocks (
  bucket     int         NOT NULL,
  mailing_id bigint      NOT NULL,
  no         bigint      NOT NULL,
  client_ids bigint[]    NOT NULL,
  lowest     bigint      GENERATED ALWAYS AS (client_ids[1]) STORED,
  highest    bigint      GENERATED ALWAYS AS (client_ids[cardinality(client_ids)]) STORED,
  created_at timestamptz NOT NULL,
  due_at     timestamptz NOT NULL,
  settled_at timestamptz NOT NULL,
  status     smallint    NOT NULL CHECK (status BETWEEN 4 AND 6),
  reason     smallint    NOT NULL,
  PRIMARY KEY (bucket, mailing_id, no)
);
ALTER TABLE blocks ALTER client_ids SET STORAGE EXTERNAL;
CREATE INDEX blocks_reach ON blocks (bucket, mailing_id, lowest, highest);

-- Up to which client somebody may be in the mailing already; behind it a pass over the clients need not look.
ALTER TABLE expansions ADD COLUMN reached bigint NOT NULL DEFAULT 9223372036854775807;
ALTER TABLE expansions ALTER reached SET DEFAULT 0;

-- Only what is tried again is updated.
ALTER TABLE messages SET (fillfactor = 95);

-- Releases before this one write a row for each client and leave `created_at` to its default: they cannot take in
-- anybody any more, who might stand in a fresh batch already.
ALTER TABLE messages ALTER created_at DROP DEFAULT;

-- And they claim nothing, since to them all sending is stopped, for good: what they hold is given back and recorded.
-- The emergency stop moves to a column of its own.
ALTER TABLE dispatch_settings ADD COLUMN stopped boolean NOT NULL DEFAULT false;
UPDATE dispatch_settings SET stopped = paused, paused = true;
ALTER TABLE dispatch_settings ADD CONSTRAINT older_releases_claim_nothing CHECK (paused);

-- The message of one client where it has no row, with columns as those of `messages`. Inlined.
CREATE FUNCTION unwritten_v1(p_bucket int, p_mailing_id bigint, p_client_id bigint)
RETURNS TABLE (status smallint, reason smallint, created_at timestamptz, due_at timestamptz, settled_at timestamptz)
LANGUAGE sql STABLE AS $$
  SELECT 1::smallint, 0::smallint, b.created_at, b.due_at, NULL::timestamptz FROM batches b
  WHERE b.bucket = p_bucket AND b.mailing_id = p_mailing_id AND b.fresh
    AND b.lowest <= p_client_id AND b.highest >= p_client_id AND p_client_id = ANY (b.client_ids)
  UNION ALL
  SELECT k.status, k.reason, k.created_at, k.due_at, k.settled_at FROM blocks k
  WHERE k.bucket = p_bucket AND k.mailing_id = p_mailing_id
    AND k.lowest <= p_client_id AND k.highest >= p_client_id AND p_client_id = ANY (k.client_ids)
$$;

-- Every message, wherever it stands: for people, and for what reads all of a mailing.
CREATE VIEW ledger AS
  SELECT bucket, mailing_id, client_id, status, reason, attempts, created_at, due_at, settled_at, endpoint_status,
    endpoint_code, duration_ms, forgiven, maybe_sent
  FROM messages
  UNION ALL
  SELECT b.bucket, b.mailing_id, i.client_id, 1::smallint, 0::smallint, 0::smallint, b.created_at, b.due_at, NULL, NULL,
    NULL, NULL, NULL, NULL
  FROM batches b CROSS JOIN LATERAL unnest(b.client_ids) AS i(client_id) WHERE b.fresh
  UNION ALL
  SELECT k.bucket, k.mailing_id, i.client_id, k.status, k.reason, 0::smallint, k.created_at, k.due_at, k.settled_at,
    NULL, NULL, NULL, NULL, NULL
  FROM blocks k CROSS JOIN LATERAL unnest(k.client_ids) AS i(client_id);

-- The first $p_limit messages without rows of a mailing in a bucket behind a client, in the order of clients. Batches
-- are read in the order of their first clients, until none that follows can reach into the page.
CREATE FUNCTION list_unwritten_v1(
  p_bucket int, p_mailing_id bigint, p_after bigint, p_limit int, p_statuses smallint[]
) RETURNS TABLE (
  client_id bigint, status smallint, reason smallint, created_at timestamptz, due_at timestamptz,
  settled_at timestamptz
) LANGUAGE plpgsql STABLE AS $$
DECLARE
  k record;
  v_ids bigint[] := '{}';
  v_of int[] := '{}';
  v_last bigint;
  v_kinds smallint[] := '{}';
  v_reasons smallint[] := '{}';
  v_times timestamptz[] := '{}';
BEGIN
  FOR k IN
    SELECT b.lowest, b.client_ids, 1 AS status, 0 AS reason, b.created_at, b.due_at, NULL::timestamptz AS settled_at
    FROM batches b
    WHERE b.bucket = p_bucket AND b.mailing_id = p_mailing_id AND b.fresh AND b.highest > p_after
      AND (p_statuses IS NULL OR 1 = ANY (p_statuses))
    UNION ALL
    SELECT e.lowest, e.client_ids, e.status, e.reason, e.created_at, e.due_at, e.settled_at
    FROM blocks e
    WHERE e.bucket = p_bucket AND e.mailing_id = p_mailing_id AND e.highest > p_after
      AND (p_statuses IS NULL OR e.status = ANY (p_statuses))
    ORDER BY 1
  LOOP
    EXIT WHEN cardinality(v_ids) >= p_limit AND k.lowest > v_last;
    v_kinds := v_kinds || k.status::smallint;
    v_reasons := v_reasons || k.reason::smallint;
    v_times := v_times || ARRAY[k.created_at, k.due_at, k.settled_at];
    SELECT array_agg(n.id ORDER BY n.id), array_agg(n.of ORDER BY n.id), max(n.id) INTO v_ids, v_of, v_last
    FROM (
      SELECT o.id, o.of FROM unnest(v_ids, v_of) AS o(id, of)
      UNION ALL
      SELECT i.id, cardinality(v_kinds) FROM unnest(k.client_ids) AS i(id) WHERE i.id > p_after
      ORDER BY 1 LIMIT p_limit
    ) n;
    v_ids := coalesce(v_ids, '{}');
  END LOOP;
  RETURN QUERY
  SELECT o.id, v_kinds[o.of], v_reasons[o.of], v_times[3 * o.of - 2], v_times[3 * o.of - 1], v_times[3 * o.of]
  FROM unnest(v_ids, v_of) AS o(id, of) ORDER BY o.id;
END $$;

-- The write path, one function for each step, called with the bucket and named arguments. A later release that needs
-- another one adds a version beside these. Claims and settlements keep to generic plans: every session would otherwise
-- plan each of their statements five times before it keeps one. Locks are taken in the order of the whole project: expansions, batches,
-- buckets, messages, blocks, mailing_counts, mailing_figures, journal, log.

-- An array of one entry, which holds for all, as one with an entry for each.
CREATE FUNCTION spread(entries anyarray, n int) RETURNS anyarray LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN cardinality(entries) = 1 AND n > 1 THEN array_fill(entries[1], ARRAY[n]) ELSE entries END
$$;

-- Puts new clients into batches that are due together, and ends at once, in blocks, those whose window does not open
-- before the mailing's end. ONE statement looks who is in already: what moves from a batch to a row meanwhile is seen
-- in one of them. The LIMITs make these look-ups one by one; whole tables would be read otherwise.
CREATE FUNCTION take_in_v1(
  p_bucket int, p_mailing_id bigint, p_batch_size int, p_ends_at timestamptz, p_reached bigint, p_ids bigint[],
  p_due_times timestamptz[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  v_n int;
  v_late bigint[];
  v_reason smallint;
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
  IF p_due_times[1] = ALL (p_due_times) AND p_due_times[1] < p_ends_at THEN
    FOR i IN 0 .. (v_n - 1) / p_batch_size LOOP
      INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at, created_at, fresh)
      VALUES (p_bucket, p_mailing_id, nextval('batch_no'), p_ids[i * p_batch_size + 1 : (i + 1) * p_batch_size],
        p_due_times[1], now(), now(), true);
    END LOOP;
  ELSE
    INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at, created_at, fresh)
    SELECT p_bucket, p_mailing_id, nextval('batch_no'), g.client_ids, g.due_at, now(), now(), true
    FROM parts_v1(p_ids, p_due_times, p_batch_size) g WHERE g.due_at < p_ends_at;
    SELECT array_agg(a.id ORDER BY a.id) INTO v_late FROM unnest(p_ids, p_due_times) AS a(id, due_at)
    WHERE a.due_at >= p_ends_at;
  END IF;
  IF v_late IS NOT NULL THEN
    v_reason := CASE WHEN p_ends_at <= now() THEN 4 ELSE 5 END;
    UPDATE buckets SET journal_seq = journal_seq + 1 WHERE bucket = p_bucket RETURNING journal_seq INTO v_seq;
    INSERT INTO blocks (bucket, mailing_id, no, client_ids, created_at, due_at, settled_at, status, reason)
    SELECT p_bucket, p_mailing_id, nextval('batch_no'), g.client_ids, now(), g.due_at, now(), 4, v_reason
    FROM parts_v1(p_ids, p_due_times, p_batch_size) g WHERE g.due_at >= p_ends_at;
  END IF;
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
  SELECT p_bucket, p_mailing_id, c.status, c.reason, c.n
  FROM (VALUES (1::smallint, 0::smallint, v_n - coalesce(cardinality(v_late), 0)), (4::smallint, v_reason, cardinality(v_late)))
    AS c(status, reason, n)
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

-- Splits clients into parts that are due together and no larger than a batch.
CREATE FUNCTION parts_v1(p_ids bigint[], p_due_times timestamptz[], p_batch_size int)
RETURNS TABLE (client_ids bigint[], due_at timestamptz) LANGUAGE sql STABLE AS $$
  SELECT array_agg(n.id ORDER BY n.id), n.due_at
  FROM (
    SELECT a.id, a.due_at, (row_number() OVER (PARTITION BY a.due_at ORDER BY a.id) - 1) / p_batch_size AS part
    FROM unnest(p_ids, p_due_times) AS a(id, due_at)
  ) n
  GROUP BY n.due_at, n.part
$$;

-- Takes in the next clients of a bucket, in the order of their ids. Returns no row when another replica holds or has
-- moved the position or the mailing was changed. An audience that is fixed at the start takes in no client that was
-- added since. A NULL in the filter matches everybody.
CREATE FUNCTION expand_v1(
  p_bucket int, p_mailing_id bigint, p_batch_size int, p_version int, p_limit int, p_position bigint, p_tags text[],
  p_operator_codes text[], p_timezones text[], p_attributes jsonb, p_chosen_ids bigint[]
) RETURNS TABLE ("position" bigint, finished boolean, seen bigint, inserted bigint) LANGUAGE plpgsql AS $$
DECLARE
  e record;
  v record;
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
  v_inserted := take_in_v1(p_bucket, p_mailing_id, p_batch_size, e.ends_at, e.reached, v.ids, v.due_times);
  RETURN QUERY
  UPDATE expansions x SET last_client_id = greatest(x.last_client_id, v.last), finished = v.seen < p_limit,
    reached = CASE WHEN v.seen < p_limit THEN 9223372036854775807 ELSE greatest(x.reached, v.last) END
  WHERE x.bucket = p_bucket AND x.mailing_id = p_mailing_id
  RETURNING x.last_client_id, x.finished, v.seen, v_inserted;
END $$;

-- Takes in the clients that were changed since the last recheck and now match.
CREATE FUNCTION expand_changes_v1(
  p_bucket int, p_mailing_id bigint, p_batch_size int, p_version int, p_limit int, p_position bigint, p_tags text[],
  p_operator_codes text[], p_timezones text[], p_attributes jsonb, p_chosen_ids bigint[]
) RETURNS TABLE ("position" bigint, finished boolean, seen bigint, inserted bigint) LANGUAGE plpgsql AS $$
DECLARE
  v_ends_at timestamptz;
  f record;
  v record;
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
  v_inserted := take_in_v1(p_bucket, p_mailing_id, p_batch_size, v_ends_at, 9223372036854775807, v.ids, v.due_times);
  RETURN QUERY
  UPDATE expansions x SET change_seq = f.last, reached = 9223372036854775807
  WHERE x.bucket = p_bucket AND x.mailing_id = p_mailing_id
  RETURNING x.change_seq, f.seen < p_limit, f.seen, v_inserted;
END $$;

-- The ids that are not among others, ascending.
CREATE FUNCTION without_v1(p_ids bigint[], p_others bigint[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ARRAY(SELECT unnest(p_ids) EXCEPT SELECT unnest(p_others) ORDER BY 1)
$$;

-- Why a client is not to get a message: they opted out, or no longer match; 0 if they are. Inlined. Filters that are NULL
-- match everybody.
CREATE FUNCTION skip_reason_v1(
  p_opted_out boolean, p_id bigint, p_tag text, p_operator_code text, p_timezone text, p_client_attributes jsonb,
  p_tags text[], p_operator_codes text[], p_timezones text[], p_attributes jsonb, p_chosen_ids bigint[]
) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_opted_out THEN 8
    WHEN (p_tags IS NULL OR p_tag = ANY (p_tags))
      AND (p_operator_codes IS NULL OR p_operator_code = ANY (p_operator_codes))
      AND (p_timezones IS NULL OR p_timezone = ANY (p_timezones))
      AND (p_attributes IS NULL OR p_client_attributes @> p_attributes)
      AND (p_chosen_ids IS NULL OR p_id = ANY (p_chosen_ids)) THEN 0
    ELSE 9 END::smallint
$$;

-- Leases open batches and returns each with its messages, in arrays that run parallel to client_ids; NULL in place of
-- an array means the usual of all: no attempts, nobody to be skipped, no window. The incremented fence makes writes of
-- earlier holders fail. A mailing that was changed or stopped since its definition was read yields none. A batch that
-- still names a holder was not given back: what that one sent is unknown, so the batch is marked (`doubtful`) until it
-- is settled. Of fresh batches only the clients are read; those whose clients are gone are not in the arrays, but `gone`.
CREATE FUNCTION claim_v1(
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

-- Outcomes that are alike, counted. Arrays run parallel, or have one entry for all.
CREATE FUNCTION alike_v1(
  p_n int, p_statuses smallint[], p_reasons smallint[], p_attempts smallint[], p_attempted smallint[], p_durations int[]
) RETURNS TABLE (status smallint, reason smallint, attempts smallint, latency int, n bigint, tried bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF cardinality(p_statuses || p_reasons || p_attempts || p_attempted) = 4 THEN
    -- The usual batch: only how long each took differs.
    RETURN QUERY
    SELECT p_statuses[1], p_reasons[1], p_attempts[1], CASE WHEN p_statuses[1] = 2 THEN latency_bin(o.duration) END,
      count(*), count(*) * p_attempted[1]
    FROM (SELECT unnest(spread(p_durations, p_n)) AS duration OFFSET 0) o
    GROUP BY 4;
    RETURN;
  END IF;
  RETURN QUERY
  SELECT o.status, o.reason, o.attempts, CASE WHEN o.status = 2 THEN latency_bin(o.duration) END, count(*),
    sum(o.attempted)
  FROM (
    SELECT unnest(spread(p_statuses, p_n)) AS status, unnest(spread(p_reasons, p_n)) AS reason,
      unnest(spread(p_attempts, p_n)) AS attempts, unnest(spread(p_attempted, p_n)) AS attempted,
      unnest(spread(p_durations, p_n)) AS duration
    OFFSET 0
  ) o
  GROUP BY 1, 2, 3, 4;
END $$;

-- Adds outcomes to the counters and figures of a mailing: one pass over all messages, and sums of the few rows that it
-- leaves.
CREATE FUNCTION count_outcomes_v1(
  p_bucket int, p_mailing_id bigint, p_n int, p_statuses smallint[], p_reasons smallint[], p_attempts smallint[],
  p_attempted smallint[], p_durations int[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  WITH alike AS MATERIALIZED (
    SELECT * FROM alike_v1(p_n, p_statuses, p_reasons, p_attempts, p_attempted, p_durations)
  ), counted AS (
    INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n, attempts, slot, slot_n)
    SELECT p_bucket, p_mailing_id, c.status, c.reason, c.n, c.tried, rate_slot(now()), c.n
    FROM (
      SELECT a.status, a.reason, sum(a.n) AS n, sum(a.tried) AS tried FROM alike a WHERE a.status <> 1 GROUP BY 1, 2
      UNION ALL
      SELECT 1, 0, -coalesce(sum(a.n) FILTER (WHERE a.status <> 1), 0),
        coalesce(sum(a.tried) FILTER (WHERE a.status = 1), 0)
      FROM alike a
    ) c
    ORDER BY c.status, c.reason
    ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET
      n = k.n + excluded.n, attempts = k.attempts + excluded.attempts, last_at = excluded.last_at,
      slot = excluded.slot,
      slot_n = CASE WHEN k.slot = excluded.slot THEN k.slot_n + excluded.n ELSE excluded.n END,
      before_n = CASE excluded.slot - k.slot WHEN 0 THEN k.before_n WHEN 1 THEN k.slot_n ELSE 0 END
    RETURNING 1
  ), figures AS MATERIALIZED (
    SELECT f.kind, f.key, sum(a.n) AS n
    FROM alike a CROSS JOIN LATERAL (VALUES
      (1, a.attempts::bigint, a.status <> 1),
      (2, a.latency::bigint, a.latency IS NOT NULL),
      (3, floor(extract(epoch FROM now()) / 60)::bigint, a.status = 2),
      (4, floor(extract(epoch FROM now()) / 60)::bigint, a.status = 3)
    ) AS f (kind, key, counts)
    WHERE f.counts AND (SELECT count(*) FROM counted) >= 0
    GROUP BY f.kind, f.key
  ), updated AS (
    -- Most are there already. To update them costs half as much as ON CONFLICT, which locks each row before.
    UPDATE mailing_figures g SET n = g.n + f.n FROM figures f
    WHERE g.bucket = p_bucket AND g.mailing_id = p_mailing_id AND g.kind = f.kind AND g.key = f.key
    RETURNING g.kind, g.key
  )
  INSERT INTO mailing_figures AS g (bucket, mailing_id, kind, key, n)
  SELECT p_bucket, p_mailing_id, f.kind, f.key, f.n FROM figures f LEFT JOIN updated u USING (kind, key)
  WHERE u.kind IS NULL ORDER BY f.kind, f.key
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = g.n + excluded.n;
END $$;

-- Outcomes of messages that have rows. Returns what was recorded, in parallel arrays: only what is still pending and
-- not settled by an earlier call whose answer was lost, after which it was put back.
CREATE FUNCTION settle_rows_v1(
  p_bucket int, p_mailing_id bigint, p_doubtful boolean, INOUT p_client_ids bigint[], p_attempts_before smallint[],
  INOUT p_statuses smallint[], INOUT p_reasons smallint[], INOUT p_attempted smallint[], p_uncounted smallint[],
  p_maybe_sent boolean[], p_endpoint_statuses smallint[], p_endpoint_codes bigint[], INOUT p_durations int[],
  p_due_times timestamptz[], OUT attempts smallint[]
) LANGUAGE plpgsql AS $$
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
      settled_at = CASE WHEN entry_of(p_statuses, m.client_id, p_client_ids) <> 1 THEN now() END
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

-- Outcomes of messages of a fresh batch: their rows are written here. Those that ended alike and untried become a
-- block; what is put off untried has no row. Not ON CONFLICT: a client who was in the mailing twice would fail here,
-- and be seen.
CREATE FUNCTION settle_fresh_v1(
  p_bucket int, p_mailing_id bigint, p_batch_no bigint, p_doubtful boolean, p_created_at timestamptz,
  p_due_at timestamptz, p_client_ids bigint[], p_statuses smallint[], p_reasons smallint[], p_attempted smallint[],
  p_uncounted smallint[], p_maybe_sent boolean[], p_endpoint_statuses smallint[], p_endpoint_codes bigint[],
  p_durations int[], p_due_times timestamptz[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_n int := cardinality(p_client_ids);
BEGIN
  IF v_n > 1 AND p_statuses[1] IN (4, 5, 6) AND cardinality(p_statuses) = 1 AND cardinality(p_reasons) = 1
    AND p_attempted = '{0}' AND p_maybe_sent = '{f}' AND NOT p_doubtful
  THEN
    INSERT INTO blocks (bucket, mailing_id, no, client_ids, created_at, due_at, settled_at, status, reason)
    VALUES (p_bucket, p_mailing_id, nextval('batch_no'), p_client_ids, p_created_at, p_due_at, now(), p_statuses[1],
      p_reasons[1]);
    RETURN;
  END IF;
  IF p_statuses[1] <> 1 AND cardinality(p_statuses || p_reasons || p_attempted || p_uncounted || p_endpoint_statuses) = 5
    AND cardinality(p_endpoint_codes) = 1 AND p_maybe_sent = '{f}' AND NOT p_doubtful
  THEN
    -- The usual batch: all alike, but for how long each took. It saves a tenth.
    INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, settled_at, endpoint_code, duration_ms,
      status, reason, attempts, endpoint_status, forgiven)
    SELECT p_bucket, p_mailing_id, o.client_id, p_created_at, p_due_at, now(), p_endpoint_codes[1], o.duration,
      p_statuses[1], p_reasons[1], p_attempted[1], p_endpoint_statuses[1], nullif(p_uncounted[1], 0)
    FROM (SELECT unnest(p_client_ids) AS client_id, unnest(spread(p_durations, v_n)) AS duration OFFSET 0) o;
    RETURN;
  END IF;
  INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, settled_at, endpoint_code, duration_ms,
    status, reason, attempts, endpoint_status, forgiven, maybe_sent)
  SELECT p_bucket, p_mailing_id, o.client_id, p_created_at, coalesce(o.due_at, p_due_at),
    CASE WHEN o.status <> 1 THEN now() END, o.endpoint_code, o.duration, o.status, o.reason, o.attempted,
    o.endpoint_status, nullif(o.uncounted, 0), CASE WHEN o.maybe_sent OR p_doubtful THEN true END
  FROM (
    SELECT unnest(p_client_ids) AS client_id, unnest(spread(p_statuses, v_n)) AS status,
      unnest(spread(p_reasons, v_n)) AS reason, unnest(spread(p_attempted, v_n)) AS attempted,
      unnest(spread(p_uncounted, v_n)) AS uncounted, unnest(spread(p_maybe_sent, v_n)) AS maybe_sent,
      unnest(spread(p_endpoint_statuses, v_n)) AS endpoint_status,
      unnest(spread(p_endpoint_codes, v_n)) AS endpoint_code, unnest(spread(p_durations, v_n)) AS duration,
      unnest(spread(p_due_times, v_n)) AS due_at
    OFFSET 0
  ) o
  WHERE o.status <> 1 OR o.attempted > 0 OR o.maybe_sent OR p_doubtful;
END $$;

-- Records outcomes of a leased batch, only under the fence it was claimed with. The arrays are parallel to
-- p_client_ids, which ascend; an array of one entry holds for all, an empty one is NULL for all. What a fresh batch does
-- not have any more was recorded by an earlier call whose answer was lost. With p_done the batch is removed or, with
-- what was not begun (p_kept), given back. Other messages that stay pending go into new batches.
CREATE FUNCTION settle_v1(
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
  INSERT INTO attempts (bucket, mailing_id, client_id, number, at, endpoint, error_class, endpoint_status,
    endpoint_code, duration_ms, response_excerpt)
  SELECT p_bucket, p_mailing_id, f.client_id, f.number, f.at, p_endpoint, f.error_class, f.endpoint_status,
    f.endpoint_code, f.duration_ms, f.excerpt
  FROM unnest(p_failure_ids, p_failure_numbers, p_failure_times, p_failure_classes, p_failure_statuses,
    p_failure_codes, p_failure_durations, p_failure_excerpts)
    AS f(client_id, number, at, error_class, endpoint_status, endpoint_code, duration_ms, excerpt)
  WHERE p_failure_ids <> '{}'
  ON CONFLICT DO NOTHING;
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

-- Writes what ended under a number of the change feed; returns how many messages did.
CREATE FUNCTION record_changes_v1(
  p_bucket int, p_mailing_id bigint, p_seq bigint, p_client_ids bigint[], p_statuses smallint[]
) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  v_ended bigint[] := p_client_ids;
  v_statuses smallint[] := p_statuses;
BEGIN
  IF 1 = ANY (p_statuses) THEN
    SELECT array_agg(o.id), array_agg(o.status) INTO v_ended, v_statuses
    FROM unnest(p_client_ids, spread(p_statuses, cardinality(p_client_ids))) AS o(id, status) WHERE o.status <> 1;
  END IF;
  IF v_ended IS NULL THEN
    RETURN 0;
  END IF;
  IF v_statuses[1] = ALL (v_statuses) THEN
    v_statuses := v_statuses[1:1];
  END IF;
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  VALUES (p_bucket, p_seq, p_mailing_id, v_ended, v_statuses);
  RETURN cardinality(v_ended);
END $$;

-- Writes events, last of all. Without any, nothing is read or locked.
CREATE FUNCTION log_events_v1(
  p_bucket int, p_mailing_id bigint, p_levels smallint[], p_names text[], p_texts text[], p_client_ids bigint[],
  p_details text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_n int := cardinality(p_levels);
  v_seq bigint;
BEGIN
  IF v_n = 0 THEN
    RETURN;
  END IF;
  UPDATE log_seqs SET seq = seq + v_n WHERE bucket = p_bucket RETURNING seq - v_n INTO v_seq;
  INSERT INTO log (bucket, no, level, event, text, mailing_id, message_id, client_id, details)
  SELECT p_bucket, v_seq + e.ordinality, e.level, e.event, e.text, p_mailing_id,
    CASE WHEN e.client_id > 0 THEN p_mailing_id << 32 | e.client_id ELSE 0 END, e.client_id, e.details::jsonb
  FROM unnest(p_levels, p_names, p_texts, p_client_ids, p_details)
    WITH ORDINALITY AS e(level, event, text, client_id, details, ordinality);
END $$;

-- migrate:down

-- Stop all replicas before. What has no row gets one; the batches of fresh messages are then as others.
ALTER TABLE dispatch_settings DROP CONSTRAINT older_releases_claim_nothing;
UPDATE dispatch_settings SET paused = stopped;
ALTER TABLE dispatch_settings DROP COLUMN stopped;
INSERT INTO messages (bucket, mailing_id, client_id, created_at, due_at, settled_at, status, reason)
SELECT l.bucket, l.mailing_id, l.client_id, l.created_at, l.due_at, l.settled_at, l.status, l.reason
FROM ledger l LEFT JOIN messages m USING (bucket, mailing_id, client_id)
WHERE m.client_id IS NULL;
DROP FUNCTION without_v1, skip_reason_v1, alike_v1, settle_v1, settle_fresh_v1, settle_rows_v1, count_outcomes_v1, record_changes_v1, log_events_v1, claim_v1,
  expand_v1, expand_changes_v1, take_in_v1, parts_v1, spread, list_unwritten_v1, unwritten_v1;
DROP VIEW ledger;
DROP TABLE blocks;
ALTER TABLE expansions DROP COLUMN reached;
ALTER TABLE batches DROP COLUMN lowest, DROP COLUMN highest, DROP COLUMN fresh, DROP COLUMN created_at;
ALTER TABLE messages ALTER created_at SET DEFAULT now();
ALTER TABLE messages SET (fillfactor = 50);
