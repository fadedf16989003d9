"""The model: parameters in one flat buffer, layers with their work buffers, and the VAE as straight-line code."""
