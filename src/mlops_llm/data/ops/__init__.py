"""The operations of the data stage: one file each."""
