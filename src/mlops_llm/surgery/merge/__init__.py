"""Formulas that make one tensor of several, one a file, each with its paper."""
