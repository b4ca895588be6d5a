"""Training recipes: one YAML file a recipe, composed by Hydra from ``size/`` and ``squeezeformer/``."""
