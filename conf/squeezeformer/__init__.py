"""The parts from which the recipes are composed. Each part is a YAML file."""
