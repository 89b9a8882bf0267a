"""Experiments: scripts that measure what the pages in docs/ say."""
