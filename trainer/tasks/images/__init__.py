"""The task on images: from the bytes of a file to pixels of one size, and random changes in training."""
