-- The request wrk repeats: what the service sends, with the id of no message.
wrk.method = "POST"
wrk.body = '{"id":0,"phone":79000000000,"text":"Hello 79000000000"}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer bench"
wrk.headers["Idempotency-Key"] = "0"
