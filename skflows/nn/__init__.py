"""Neural networks of the flows, and the convention of their hand-written gradients.

All networks work on columns: an input has the shape ``(n_in, n)``, an output ``(n_out, n)``. With
the n rows of a table last in memory, matrix products cost the same and elementwise operations run
several times faster. Several networks of the same shapes run as one if their parameters and inputs
have a leading member axis.
"""
