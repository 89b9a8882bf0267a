"""Runs on disk: checkpoints, their schema, locks, atomic writes."""
