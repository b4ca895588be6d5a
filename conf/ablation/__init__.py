"""The paper's ladder from Conformer to Squeezeformer: one recipe a step, each a line or two beside the one before."""
