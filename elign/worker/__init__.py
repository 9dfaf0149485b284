"""Published names of the stages of an iteration."""
