"""Programs that measure, a folder a question; they run from the root of the clone: ``python -m benchmarks.speed``."""
