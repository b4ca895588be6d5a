"""The parts that every recipe shares, one YAML file each."""
