"""Changes to networks after they are built (image size, feature pyramid, convolutional form) and their MACs."""
