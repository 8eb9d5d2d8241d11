"""Other frameworks: our backbones in their trainers, their files here. Importing this imports none."""
