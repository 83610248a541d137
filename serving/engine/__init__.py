"""Engines: what decides a route. `base` is the interface; `embedded` runs a checkpoint here."""
