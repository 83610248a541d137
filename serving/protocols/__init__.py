"""The wire protocols: what each looks like, and how one is told in the words of another."""
