"""Which form of relative attention is best for training on a GPU: precision of the gradients, operations and bytes."""
