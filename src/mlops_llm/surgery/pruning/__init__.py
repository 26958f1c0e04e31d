"""Fewer neurons, layers or heads: what there is, what goes, and what stays."""
