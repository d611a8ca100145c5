-- Segments: filters with a name. What mailings refer to is the name; their `audience` has the filter put in.

-- name: insert_segment
-- Returns no row when the name is taken.
INSERT INTO segments (id, name, filter) VALUES (nextval('segment_id'), $segment_name, $filter)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: get_segment
SELECT * FROM segments WHERE id = $segment_id;

-- name: find_segment
SELECT * FROM segments WHERE lower(name) = lower($segment_name);

-- name: lock_segment
SELECT * FROM segments WHERE id = $segment_id FOR UPDATE;

-- name: share_segments
-- Keeps segments as they are until the end of the transaction.
SELECT name, filter FROM segments WHERE lower(name) = ANY ($names::text[]) ORDER BY id FOR SHARE;

-- name: read_segments
SELECT name, filter FROM segments WHERE lower(name) = ANY ($names::text[]);

-- name: update_segment
UPDATE segments SET name = $segment_name, filter = $filter, version = version + 1, updated_at = now(),
  size_at = CASE WHEN filter = $filter THEN size_at END
WHERE id = $segment_id;

-- name: delete_segment
DELETE FROM segments WHERE id = $segment_id;

-- name: list_segments
SELECT * FROM segments WHERE (lower(name), id) > ($after_name, $after_id::bigint) ORDER BY lower(name), id LIMIT $limit;

-- name: record_size
-- Unless the segment was changed meanwhile.
UPDATE segments SET size = $size, size_at = now() WHERE id = $segment_id AND version = $version RETURNING *;

-- fragment: naming
(NOT $live::boolean OR m.state IN ({MailingState.SCHEDULED}, {MailingState.RUNNING}, {MailingState.PAUSED}))
  AND jsonb_path_exists(m.filter, '$.**.segment ? (@ == $"segment")', jsonb_build_object('segment', $segment_name::text))

-- name: mailings_naming
-- The mailings that name a segment, at any depth of their filter, locked; only those that are not over if $live. Reads
-- all of these: there are few.
WITH begun AS MATERIALIZED (
  SELECT DISTINCT e.mailing_id
  FROM mailings m CROSS JOIN buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = m.id
  WHERE {naming}
)
SELECT id, filter, audience_mode, state, id IN (SELECT mailing_id FROM begun) AS begun
FROM mailings m
WHERE {naming}
ORDER BY id
FOR UPDATE;

-- name: schedules_naming
-- The schedules whose template names a segment, locked. Reads all of them: there are few.
SELECT id, template
FROM schedules
WHERE jsonb_path_exists(template, '$.filter.**.segment ? (@ == $"segment")',
  jsonb_build_object('segment', $segment_name::text))
ORDER BY id
FOR UPDATE;

-- name: name_segment_in_template
UPDATE schedules SET template = $template WHERE id = $schedule_id;

-- name: name_segment_anew
UPDATE mailings SET filter = $filter WHERE id = $mailing_id;

-- name: follow_segment
-- A mailing gets the new filter of a segment; with it, rechecks begin once the new audience is expanded.
UPDATE mailings SET audience = $audience, version = version + 1, updated_at = now(),
  recheck_at = CASE WHEN state = {MailingState.RUNNING} THEN 'infinity' ELSE recheck_at END
WHERE id = $mailing_id;
