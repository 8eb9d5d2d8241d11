"""Other frameworks: our backbones in their trainers. Importing this imports none."""
