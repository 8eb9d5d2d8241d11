"""Operators: a reference made of Paddle's, and quicker ones for some devices."""
