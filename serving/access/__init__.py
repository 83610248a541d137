"""Who may call, how often, and for how much money."""
