"""New weights from old, each with a certificate."""
