-- Opt-outs that clients themselves send, or their gateway reports.

-- name: opt_clients
-- Sets the opt-out of clients of one bucket, or takes it back, and returns those it changed. Running mailings
-- see the change as they see any other.
WITH changed AS (
  UPDATE clients SET opted_out = $out::boolean, version = version + 1, updated_at = now(),
    opt_out_at = CASE WHEN $out THEN moment.at END, opt_out_source = CASE WHEN $out THEN $origin::smallint ELSE 0 END,
    opt_out_word = CASE WHEN $out THEN $word::text ELSE '' END,
    opt_out_endpoint = CASE WHEN $out THEN $endpoint::text ELSE '' END
  FROM (SELECT now() AS at) moment
  WHERE bucket = $bucket AND id = ANY($client_ids::bigint[]) AND opted_out <> $out
  RETURNING id
), tick AS (
  UPDATE client_change_seqs SET seq = seq + 1 WHERE bucket = $bucket AND EXISTS (SELECT 1 FROM changed) RETURNING seq
), noted AS (
  INSERT INTO client_changes (bucket, seq, client_ids)
  SELECT $bucket, seq, (SELECT array_agg(id ORDER BY id) FROM changed) FROM tick
), numbered AS (
  UPDATE log_seqs SET seq = seq + (SELECT count(*) FROM changed)
  WHERE bucket = $bucket AND EXISTS (SELECT 1 FROM changed)
  RETURNING seq
), logged AS (
  INSERT INTO log (bucket, no, level, event, text, mailing_id, message_id, client_id, details)
  SELECT $bucket, n.seq - (SELECT count(*) FROM changed) + row_number() OVER (ORDER BY c.id), $level::smallint,
    $event::text, $text::text, 0, 0, c.id, $details::text::jsonb
  FROM numbered n CROSS JOIN changed c
)
SELECT id FROM changed;

-- name: find_phones
SELECT bucket, client_id FROM client_phones WHERE phone = ANY($phones::text[]);
