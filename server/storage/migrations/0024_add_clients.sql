-- migrate:up

-- Adds ordinary clients: of a phone that is free and of which nothing is remembered, by a request id that is new. For any
-- other it changes nothing and returns no row, or it fails: the statements one by one find out why.
CREATE FUNCTION add_clients_v1(
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
    CONTINUE WHEN EXISTS (SELECT FROM phone_memories WHERE digest = v_phone);
    CONTINUE WHEN p_request_ids[i] IS NOT NULL
      AND EXISTS (SELECT FROM requests WHERE bucket = p_request_buckets[i] AND request_id = p_request_ids[i]);
    INSERT INTO client_phones (phone, bucket, client_id)
    SELECT p_phones[i], p_buckets[i], nextval('client_no') * v_spread + p_buckets[i]
    WHERE NOT EXISTS (SELECT FROM client_phones WHERE phone = p_phones[i])
    RETURNING client_id INTO v_id;
    CONTINUE WHEN v_id IS NULL;
    -- The client who had the phone may have been deleted since it was asked above.
    IF EXISTS (SELECT FROM phone_memories WHERE digest = v_phone) THEN
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

-- migrate:down

DROP FUNCTION add_clients_v1(int[], text[], text[], text[], text[], time[], interval[], jsonb[], int[], uuid[], text[], bytea[]);
