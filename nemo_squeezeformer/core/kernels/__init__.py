"""Other ways to compute attention and subsampling, with the same result."""
