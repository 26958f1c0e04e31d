"""A folder from which another machine serves a model: its files, a manifest, and what vLLM, Ollama and Docker want to read."""
