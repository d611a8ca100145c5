-- What happened to one client, apart from the attempts of their messages, which have a mailing.

-- migrate:up

CREATE INDEX log_of_client ON log (bucket, client_id, no) WHERE mailing_id = 0 AND client_id > 0;

-- migrate:down

DROP INDEX log_of_client;
