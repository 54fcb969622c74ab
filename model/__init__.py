"""Networks and their training, colour arithmetic, inference, judging. Arrays in, arrays out: no database, no queue."""

import os

# TensorFlow greets every process with lines about its build; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
