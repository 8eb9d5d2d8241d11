"""Evaluation of encoders: features, kNN and probes on them, zero-shot classification."""
