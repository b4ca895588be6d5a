"""The training from recipes: composing and checking recipes, the learning-rate schedule, and weights from files."""
