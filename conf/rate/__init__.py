"""The frame rates of the encoder, one YAML file each: ``rate=8x`` on the command line."""
