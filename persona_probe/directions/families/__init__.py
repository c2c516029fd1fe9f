"""One persona asked for in five ways, and what the directions of several personas share."""
