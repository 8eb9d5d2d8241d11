"""Files of PASSL v1.1 in our keys: a pure reader of mappings, which needs neither Paddle nor the rest of the package."""
