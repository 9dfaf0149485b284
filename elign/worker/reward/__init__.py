"""Published names of rewards."""
