"""A trained model in the formats of other programs: a page for a browser, and tensors for PyTorch."""
