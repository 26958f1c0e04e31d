"""Ways in which several processes share a model, one file each."""
