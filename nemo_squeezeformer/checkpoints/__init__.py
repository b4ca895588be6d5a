"""The conversion of the authors' weights to the names and layouts of this package."""
