"""The gateway's speed beside that of LiteLLM and Portkey; see `__main__`."""
