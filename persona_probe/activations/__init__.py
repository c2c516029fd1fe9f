"""Conversations in, pooled residual-stream activations out."""
