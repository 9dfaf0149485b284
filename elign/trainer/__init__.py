"""Published names of the training."""
