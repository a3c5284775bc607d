"""Images: bytes of a file to pixels of one size, and how training changes them at random."""
