"""The code that several benchmark programs share: timing, memory, machine, encoders, training, results and tables."""
