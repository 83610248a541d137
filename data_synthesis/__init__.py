"""From corpora and generators to conversation records."""
