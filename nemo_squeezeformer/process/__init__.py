"""How a command starts and ends: the signals that end it, the streams of the console, and missing packages."""
