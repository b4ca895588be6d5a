"""The recipe that trains the model of a file again. The file gives the settings of the model."""
