"""The sizes of the encoder. Each YAML file is an option of the command line, for example ``size=xs``."""
