"""Which network, and where in it: loading, sites, conversations as tokens, adapters."""
