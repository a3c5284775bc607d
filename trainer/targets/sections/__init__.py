"""Report sections about predictions, by kind of target, and their charts."""
