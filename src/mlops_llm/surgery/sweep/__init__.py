"""Many merges of the same models, made and asked in memory."""
