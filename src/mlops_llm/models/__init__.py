"""Models: names, files, templates, loading."""
