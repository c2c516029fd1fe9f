"""Does the direction reproduce emergent alignment?"""
