"""Forms, and the fields that an action asks for."""
