"""Training: the run, its loop and its step, optimisers, precision, what is saved, and the device's own speed-ups."""
