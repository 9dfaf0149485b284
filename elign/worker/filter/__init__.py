"""Published names of the filter."""
