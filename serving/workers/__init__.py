"""Several processes that serve as one: a supervisor, workers, and one process with the engine."""
