"""From a due lease to what the history stores: rounds, sessions, and who looks at a target live."""
