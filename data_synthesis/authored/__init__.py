"""Talk written by hand: templates, vocabularies and the dialogues composed of them."""
