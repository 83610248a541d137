"""What a recipe needs before it is run: memory, time and money, by arithmetic alone."""
