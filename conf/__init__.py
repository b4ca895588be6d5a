"""Training recipes. Each recipe is a YAML file that Hydra composes from the files in the subfolders."""
