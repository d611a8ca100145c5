"""What operators look at: logs, traces, health, metrics, and the port that serves them."""
