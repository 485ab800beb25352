"""PostgreSQL's own rules as arithmetic: no Django, no database, no clock."""
