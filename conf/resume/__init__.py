"""The ways to resume a run. Each YAML file is an option of the command line, for example ``+resume=exact``."""
