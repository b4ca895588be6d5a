"""The frame rates of the encoder. Each YAML file is an option of the command line, for example ``rate=8x``."""
