"""HTTP out: what a request and its answer mean, and the two senders that make the request."""
