"""Texts: found, read, numbered, cut into batches."""
