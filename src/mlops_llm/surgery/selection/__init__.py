"""Which checkpoint of a training is taken, why, and what the others occupy."""
