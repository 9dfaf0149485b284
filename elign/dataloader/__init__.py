"""Published names of prompts."""
