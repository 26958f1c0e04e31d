"""The model registry: what is registered, what may become the champion, and why."""
