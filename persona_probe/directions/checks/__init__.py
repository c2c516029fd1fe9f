"""Is the direction real? Separation, controls, chance, reliability; and which site to choose."""
