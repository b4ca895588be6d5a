"""How a command starts and ends: signals, the streams of the console, missing packages, and causes of failures."""
