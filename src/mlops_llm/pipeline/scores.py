"""Names of scores, as far as a flow must know them."""

LOWER = ("loss", "perplexity", "seconds", "length")
"""How names of numbers end of which the lower is the better, or none is."""
