"""HTTP in, mask out. Knows the engine only through `Engine.run` and the model that it carries."""
