"""Our backbones in the trainers of other frameworks. Importing this package imports no other framework."""
