"""Answers and likelihoods of a model, whatever computes them."""
