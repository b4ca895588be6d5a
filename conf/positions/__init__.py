"""The positions of attention. Each YAML file is an option of the command line, for example ``positions=rope``."""
