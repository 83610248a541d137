"""Evaluation of deciders on benchmark files: reading, running, measuring and reporting."""
