"""Datasets: files, rows, conversations."""
