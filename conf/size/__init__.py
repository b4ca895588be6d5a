"""The sizes of the encoder, one YAML file each: ``size=xs`` on the command line."""
