"""The `pointsman` command, and what it glues together."""
