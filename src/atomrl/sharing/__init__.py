"""Models made ready for others: a folder of weights with a card, and its way to the Hugging Face hub."""
