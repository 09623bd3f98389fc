"""One driver per rail, and the pure choice between them."""
