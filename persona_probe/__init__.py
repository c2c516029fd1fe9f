"""persona_probe: find persona directions in the residual stream, and test what they cause."""
