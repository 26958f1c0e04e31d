"""LLM post-training where the experiment record is the product."""
