"""An evaluation as a report: JSON, from which PDF, Excel and HTML are made."""
