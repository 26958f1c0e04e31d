"""What `launch=ssh` is made of: the connection, what travels, the process there, its way to the record, what comes back."""
