"""A character-level text generator for the command line: an LSTM in NumPy that learns any text and writes on in its style."""

__version__ = "0.1.0"
