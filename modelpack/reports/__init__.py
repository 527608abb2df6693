"""What `validate` found, as documents: JSON with its schema, JUnit XML, one HTML page.

Pure functions from a `ValidationReport` to text. The same report gives the same bytes: there is
no clock, host or directory in them.
"""
