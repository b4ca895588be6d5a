"""Recipes: composed, checked, scheduled, resumed, and started from other weights."""
