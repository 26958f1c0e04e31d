"""What samples answers, one file each."""
