"""What `import atomrl` offers, and what the commands of the same names call."""
