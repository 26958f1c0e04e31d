"""Rows that are the same, nearly the same, or mean nearly the same."""
