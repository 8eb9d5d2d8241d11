"""What an encoder is worth: features, kNN and probes on them, classification by words."""
