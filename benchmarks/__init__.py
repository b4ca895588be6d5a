"""The benchmark programs. Each package answers one question.

Run a program from the root of the clone: ``python -m benchmarks.speed``.
"""
