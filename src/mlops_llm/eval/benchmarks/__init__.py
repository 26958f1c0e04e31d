"""Standard benchmarks, run by lm-eval's own task code."""
