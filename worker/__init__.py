"""The record (tables, states, guarded moves), the queue, and one job's way from scan to derivative."""
