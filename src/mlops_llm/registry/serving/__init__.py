"""A model behind an address: what answers, what proves it, and what follows an alias."""
