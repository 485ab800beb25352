"""From what a person asks for to what became of it: preview, performing, batches, verdicts."""
