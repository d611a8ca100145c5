-- What the service's settings say about when messages may leave, where the database's functions read it.

-- name: store_calendars
-- Returns the calendars that are new or changed.
INSERT INTO calendars AS k (name, days)
SELECT e.key, ARRAY(SELECT d.day::date FROM jsonb_array_elements_text(e.value) AS d(day))
FROM jsonb_each($calendars::jsonb) e
ON CONFLICT (name) DO UPDATE SET days = excluded.days WHERE k.days <> excluded.days
RETURNING name;

-- name: named_calendars
-- Those that mailings which are not over or schedules name.
SELECT holidays AS name FROM mailings
WHERE holidays IS NOT NULL AND state IN ({MailingState.SCHEDULED}, {MailingState.RUNNING}, {MailingState.PAUSED})
UNION
SELECT template->>'holidays' FROM schedules WHERE template ? 'holidays';

-- name: remove_calendars
DELETE FROM calendars WHERE name <> ALL ($kept::text[]);

-- name: set_default_window
-- Returns a row if that is another one than before.
UPDATE dispatch_settings SET default_window_start = $start::time, default_window_length = $length::interval
WHERE (default_window_start, default_window_length) IS DISTINCT FROM ($start::time, $length::interval)
RETURNING true;

-- name: note_all_judged
-- As a change of these mailings' own timetables: all that are not over, or those of $calendars, but for $known.
UPDATE mailings SET judged_at = now(), version = version + 1, updated_at = now()
WHERE state IN ({MailingState.SCHEDULED}, {MailingState.RUNNING}, {MailingState.PAUSED})
  AND ($all::boolean OR holidays = ANY ($calendars::text[])) AND id <> ALL ($known::bigint[])
RETURNING id;

-- name: wait_for_expansions
-- Waits for steps in progress, which take clients in by what was in force before.
UPDATE expansions SET finished = finished WHERE mailing_id = ANY ($ids::bigint[]);

-- name: judge_waiting
UPDATE batches SET due_at = now(), opened_at = now() WHERE mailing_id = ANY ($ids::bigint[]) AND due_at > now();
