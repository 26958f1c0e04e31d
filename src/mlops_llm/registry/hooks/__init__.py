"""What is told of a new champion, one a file."""
