"""Files of PASSL v1.1 in our keys: a pure reader of mappings that needs neither Paddle nor the package around it."""
