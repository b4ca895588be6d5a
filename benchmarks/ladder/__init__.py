"""What does each step from Conformer to Squeezeformer save, and does the paper's argument hold?"""
