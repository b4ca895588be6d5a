"""Recipes: composing, checks, the learning-rate schedule, and initial weights from files."""
