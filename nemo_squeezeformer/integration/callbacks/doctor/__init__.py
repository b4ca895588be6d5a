"""Callbacks that warn once about each problem of a training, with the remedy. The section ``doctor`` sets them."""
