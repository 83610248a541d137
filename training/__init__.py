"""Recipes, trainer and evaluation of routing models."""
