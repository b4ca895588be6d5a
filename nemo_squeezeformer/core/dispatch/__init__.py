"""The one seam: which implementation computes an equation of the network."""
