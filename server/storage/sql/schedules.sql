-- Schedules, and the mailings that they make.

-- name: present
SELECT now();

-- name: next_schedule_id
SELECT nextval('schedule_id');

-- name: insert_schedule
INSERT INTO schedules (id, title, template, cron, rrule, timezone, end_after, overlap, catch_up, next_at)
VALUES ($schedule_id, $title, $template, $cron, $rrule, $timezone, $end_after, $overlap, $catch_up, $next_at)
RETURNING *;

-- name: get_schedule
SELECT * FROM schedules WHERE id = $schedule_id;

-- name: list_schedules
SELECT * FROM schedules WHERE id < $before ORDER BY id DESC LIMIT $limit;

-- name: lock_schedule
SELECT *, now() AS read_at FROM schedules WHERE id = $schedule_id FOR UPDATE;

-- name: update_schedule
UPDATE schedules SET title = $title, template = $template, cron = $cron, rrule = $rrule, timezone = $timezone,
  end_after = $end_after, overlap = $overlap, catch_up = $catch_up, next_at = $next_at, waiting_at = $waiting_at,
  version = version + 1, updated_at = now()
WHERE id = $schedule_id
RETURNING *;

-- name: set_paused
UPDATE schedules SET paused = $paused, next_at = $next_at, waiting_at = NULL, version = version + 1, updated_at = now()
WHERE id = $schedule_id
RETURNING *;

-- name: delete_schedule
DELETE FROM schedules WHERE id = $schedule_id;

-- fragment: live
SELECT 1 FROM mailings m
WHERE m.schedule_id = s.id
  AND m.state IN ({MailingState.SCHEDULED}, {MailingState.RUNNING}, {MailingState.PAUSED})

-- name: due_schedules
-- The schedules of which something comes now, whether one waits for its mailings, and in how many seconds the next one
-- is due. The one statement of a service whose schedules rest.
SELECT
  ARRAY(SELECT s.id FROM schedules s WHERE s.next_at <= now() ORDER BY s.next_at LIMIT 100)
    || ARRAY(SELECT s.id FROM schedules s WHERE s.waiting_at IS NOT NULL AND NOT EXISTS ({live}) LIMIT 100) AS ids,
  EXISTS (SELECT 1 FROM schedules WHERE waiting_at IS NOT NULL) AS waits,
  extract(epoch FROM (SELECT min(next_at) FROM schedules WHERE next_at > now()) - clock_timestamp())::float8 AS next_in;

-- name: take_due_schedule
-- Locks a schedule of which something comes now; no row when another replica has it or was faster.
SELECT *, now() AS read_at FROM schedules
WHERE id = $schedule_id AND (next_at <= now() OR waiting_at IS NOT NULL)
FOR UPDATE SKIP LOCKED;

-- name: live_mailing_of
-- The latest mailing of a schedule that is not over, 0 for none.
SELECT coalesce(max(m.id), 0) FROM mailings m
WHERE m.schedule_id = $schedule_id
  AND m.state IN ({MailingState.SCHEDULED}, {MailingState.RUNNING}, {MailingState.PAUSED});

-- name: was_made
SELECT EXISTS (SELECT 1 FROM mailings WHERE schedule_id = $schedule_id AND occurrence_at = $occurrence_at);

-- name: mark_made
UPDATE mailings SET schedule_id = $schedule_id, occurrence_at = $occurrence_at WHERE id = $mailing_id;

-- name: move_on
UPDATE schedules SET next_at = $next_at, waiting_at = $waiting_at,
  last_mailing_id = CASE WHEN $mailing_id::bigint > 0 THEN $mailing_id ELSE last_mailing_id END
WHERE id = $schedule_id;
