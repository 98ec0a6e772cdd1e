"""How long each question takes on a queue of a given size, and which index answers it."""
