"""What users write, and what becomes of it: a batch file, its settings, its tasks."""
