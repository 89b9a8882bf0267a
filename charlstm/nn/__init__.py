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

A stream is a *row*: a window is (T, N, features), one time step is (N, features), and the T steps of a window are one matrix of
T*N rows. A layer's gates stand apart: (4, T, N, H). Logits alone are columns, (V, T*N). The dtype of the parameters decides the precision of everything: float32 to train,
float64 to check gradients.
"""
