"""Networks and their training, colour arithmetic, inference, judging. Arrays in, arrays out: no database, no queue."""
