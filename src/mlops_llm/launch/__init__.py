"""Where a command runs: here, or later from a queue."""
