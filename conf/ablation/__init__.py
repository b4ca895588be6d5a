"""The paper's steps from Conformer to Squeezeformer. Each recipe changes one or two lines of the previous recipe."""
