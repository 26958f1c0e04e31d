"""People rate answers: workbooks for them, what they say in the record, and how far a judge agrees with them."""
