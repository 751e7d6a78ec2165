"""skiff's formats in Python."""
