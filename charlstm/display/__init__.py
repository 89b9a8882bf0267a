"""Displays: each consumes events and shows the run on the stream that it is given. None knows anything of models."""
