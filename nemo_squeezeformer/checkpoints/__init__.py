"""Weights of others, brought into our names and layouts."""
