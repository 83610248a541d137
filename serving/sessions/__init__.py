"""Conversations that keep their model, and with it the prompt cache of its provider."""
