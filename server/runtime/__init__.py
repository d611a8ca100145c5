"""The long-running parts of a process, and how it starts and stops."""
