"""Recipes: composed, checked, scheduled, and started from other weights."""
