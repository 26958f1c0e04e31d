"""Whole flows: stages, each the ordinary command in a process and a run of its own, one after the other."""
