"""The engine: turns open batches in the database into HTTP deliveries.

It reaches the database only through the ports of `dispatcher.ports`, endpoints only through
`ports.Sender`, and knows neither gRPC nor the server. Everything begins in `dispatcher.dispatcher`.
"""
