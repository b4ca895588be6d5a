"""How audio is read and batched, one YAML file each: ``data=lhotse`` on the command line."""
