-- The numbers of clients: an id is number * buckets + bucket. They are never given twice.

-- name: count_numbers_used
-- How many were given so far, and how many there are: an id has 32 bits, of which the bucket takes some.
SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS used,
  4294967296 / (SELECT count(*) FROM buckets) - 1 AS most
FROM client_no;

-- name: take_numbers
-- Takes $count numbers, as ranges: one, unless somebody else takes some at the same time.
SELECT min(number) AS first, max(number) AS last
FROM (
  SELECT number, number - row_number() OVER (ORDER BY number) AS island
  FROM (SELECT nextval('client_no') AS number FROM generate_series(1, $count::bigint)) t
) i
GROUP BY island
ORDER BY first;
