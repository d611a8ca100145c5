-- Which daily reports were sent, so that each is sent once over all replicas.

-- migrate:up

-- `state`: 1 being tried, 2 handed to the mail server, which has not answered yet, 3 sent, 4 failed, 5 perhaps sent.
CREATE TABLE daily_reports (
  day         date        PRIMARY KEY,
  state       smallint    NOT NULL CHECK (state BETWEEN 1 AND 5),
  holder      uuid,
  held_until  timestamptz NOT NULL DEFAULT '-infinity',
  tries       int         NOT NULL DEFAULT 0,
  next_try_at timestamptz NOT NULL DEFAULT '-infinity',
  last_error  text        NOT NULL DEFAULT '',
  ended_at    timestamptz
);

-- migrate:down

DROP TABLE daily_reports;
