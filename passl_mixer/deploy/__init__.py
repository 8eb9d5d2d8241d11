"""Export of trained networks as programs for Paddle's predictor, and the predictor."""
