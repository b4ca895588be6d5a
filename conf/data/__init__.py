"""The ways to read and batch audio. Each YAML file is an option of the command line, for example ``data=lhotse``."""
