"""How much does each step from Conformer to Squeezeformer save, and do the results support the paper's argument?"""
