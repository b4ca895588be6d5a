"""How a killed run goes on, one YAML file each: ``+resume=exact`` on the command line."""
