"""The numerical core: NumPy and the standard library, nothing else.

No files, no clock, no text, no global randomness. Every function takes arrays and returns arrays; state and
buffers belong to the caller. The legend that every docstring here uses:

=====  =====================================================================
T      time: characters in a window
N      batch: streams of text that are read side by side
V      vocabulary: how many different characters there are
D      input width of a layer (V or the embedding's width below, H above)
H      hidden width: cells in a layer
L      layers
=====  =====================================================================

Arrays are *feature-major*: a window is (features, T, N), one time step is (features, N), so a step reads as in
the textbooks, ``z = W @ x + U @ h + b``, every gate is one contiguous block of rows, and all T steps of a window
are one matrix of T*N columns. The dtype of the parameters decides the precision of everything: float32 to train,
float64 in gradient checks.
"""
