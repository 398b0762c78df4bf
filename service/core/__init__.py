"""The way of an image between them: queue, engine, and the state of the service."""
