"""The numerical core, with NumPy and the standard library only.

It touches no files, clock, text or global random state. Functions take arrays and return arrays; state and buffers belong to the
caller. All docstrings here share these symbols:

=====  ==========================================================
T      time: characters in a window
N      batch: streams of text that are read in parallel
V      vocabulary size: number of distinct characters
D      input width of a layer: V or the embedding width, H above
E      embedding width
H      hidden width: cells in a layer
L      layers
=====  ==========================================================

A stream is a row: a window is (T, N, features), one time step is (N, features), and the T steps of a window form one matrix of T*N
rows. The gates of a layer are stored one after another: (4, T, N, H). Only logits are columns: (V, T*N). The dtype of the parameters
sets the precision of everything: float32 for training, float64 for checking gradients.
"""
