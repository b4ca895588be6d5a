"""Rotary positions compared with relative positions: accuracy at equal steps, time and memory."""
