-- Schedules, which make mailings by the clock.

-- migrate:up

CREATE SEQUENCE schedule_id;

-- `template` is a mailing as the contract writes it in JSON. `next_at` is NULL while a schedule is paused and when it
-- has come to its end; `waiting_at` is an occurrence whose mailing is made when an earlier one is over.
CREATE TABLE schedules (
  id              bigint      PRIMARY KEY,
  title           text        NOT NULL DEFAULT '',
  template        jsonb       NOT NULL,
  cron            text        NOT NULL DEFAULT '',
  rrule           text        NOT NULL DEFAULT '',
  timezone        text        NOT NULL,
  end_after       interval,
  overlap         smallint    NOT NULL CHECK (overlap BETWEEN 1 AND 3),
  catch_up        interval    NOT NULL,
  paused          boolean     NOT NULL DEFAULT false,
  next_at         timestamptz,
  waiting_at      timestamptz,
  last_mailing_id bigint      NOT NULL DEFAULT 0,
  version         int         NOT NULL DEFAULT 1,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  CHECK ((cron = '') <> (rrule = ''))
);
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_waiting ON schedules (id) WHERE waiting_at IS NOT NULL;

-- What a schedule made, and for which occurrence: no occurrence makes two mailings.
ALTER TABLE mailings ADD COLUMN schedule_id bigint, ADD COLUMN occurrence_at timestamptz;
CREATE UNIQUE INDEX mailings_occurrence ON mailings (schedule_id, occurrence_at) WHERE occurrence_at IS NOT NULL;
CREATE INDEX mailings_of_schedule ON mailings (schedule_id, id) WHERE schedule_id IS NOT NULL;

-- migrate:down

DROP INDEX mailings_of_schedule, mailings_occurrence;
ALTER TABLE mailings DROP COLUMN occurrence_at, DROP COLUMN schedule_id;
DROP TABLE schedules;
DROP SEQUENCE schedule_id;
