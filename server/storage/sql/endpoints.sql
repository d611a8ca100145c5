-- How endpoints are doing, as all replicas know it.

-- name: get_endpoints
SELECT name, breaker, last_error FROM endpoints WHERE name = ANY ($1::text[]);
