"""The contract between data synthesis, training and serving.

Imports neither torch nor a web framework: anything that must hold on both sides of a checkpoint
lives here once, or travels in the checkpoint's manifest.
"""
