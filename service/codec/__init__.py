"""Image files to pixels, masks to files."""
