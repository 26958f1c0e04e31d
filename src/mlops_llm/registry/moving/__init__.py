"""Runs with their models between two records: written into an archive, and entered from one."""
