"""The losses of a CTC decoder. Each YAML file is an option of the command line, for example ``loss=cr_ctc``."""
