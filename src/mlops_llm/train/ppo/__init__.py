"""Proximal policy optimization: estimates, critic and trainer."""
