"""The augmentations of the audio. Each YAML file is an option of the command line, for example ``augment=speed``."""
