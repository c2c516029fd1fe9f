"""Speed and memory, measured against what else there is."""
