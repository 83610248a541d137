"""The stored tables, a module for each subject."""
