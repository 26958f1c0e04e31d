"""Where a command can run, one file each."""
