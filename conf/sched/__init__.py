"""The learning-rate schedules. Each YAML file is an option of the command line, for example ``sched=cosine``."""
