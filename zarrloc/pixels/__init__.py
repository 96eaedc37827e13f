"""Pure functions of one image: background, measurements."""
