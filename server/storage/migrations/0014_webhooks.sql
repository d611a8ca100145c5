-- Subscribers outside: where each stands in the change feed and the event log, and how it is doing.

-- migrate:up

CREATE TABLE webhooks (
  name            text        PRIMARY KEY,
  config          text        NOT NULL,
  feed_positions  bigint[]    NOT NULL,
  log_positions   bigint[]    NOT NULL,
  holder          uuid,
  held_until      timestamptz NOT NULL DEFAULT '-infinity',
  failures        int         NOT NULL DEFAULT 0,
  next_attempt_at timestamptz NOT NULL DEFAULT '-infinity',
  last_success_at timestamptz,
  last_error      text        NOT NULL DEFAULT '',
  disabled        boolean     NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- migrate:down

DROP TABLE webhooks;
