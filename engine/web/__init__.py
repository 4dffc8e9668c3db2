"""Pages that show what runs, each from a process of its own."""
