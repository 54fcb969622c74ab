"""Networks and their training, colour arithmetic, inference and judging. Arrays in, arrays out: no database, no queue."""
