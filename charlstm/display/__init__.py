"""Displays of a run: they know events and nothing of models."""
