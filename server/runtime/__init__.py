"""The long-running parts that one process is put together from."""
