"""Benchmarks that anyone can run: ``python -m tests.benchmarks.speed --quick``. Nothing here is a test."""
