"""Fine-tuning: the recipe from a model file, the change of the vocabulary, and differences between file and model."""
