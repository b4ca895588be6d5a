"""The optimizers. Each YAML file is an option of the command line, for example ``optim=sgd``."""
