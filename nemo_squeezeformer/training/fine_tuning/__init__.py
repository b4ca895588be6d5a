"""The fine-tuning of a model: the recipe from its file, its vocabulary, and differences between a file and a model."""
