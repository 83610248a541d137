"""A large language model as the source of talk: it writes, judges and rewrites dialogues."""
