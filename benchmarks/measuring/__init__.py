"""What the programs of several questions share: turns, memory, machine, encoders, training, results, tables."""
