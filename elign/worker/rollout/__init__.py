"""Published names of sampling."""
