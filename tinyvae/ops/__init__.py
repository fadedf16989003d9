"""The mathematics: pure functions in pairs, each backward right under its forward.

Read in the order a batch meets them: dense, activations, gaussian, likelihoods, adam; then convolution, normalization
and importance, which not every model has.

Every function works on NumPy and on CuPy arrays (never both at once), keeps no state and draws no random numbers.
`dx` always means dL/dx and has the shape of x. Losses are in nats.
"""
