"""The operations of the stage, one a file."""
