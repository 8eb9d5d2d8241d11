"""A trained network as a program for Paddle's predictor: the export, the forms of families it needs, the predictor."""
