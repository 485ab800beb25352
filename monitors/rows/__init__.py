"""One file a subject: its COLUMNS and rows, for pages, exports and commands; knows no request."""
