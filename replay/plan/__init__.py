"""What is sent, when, and on which connection: pure decisions, no clock and no socket."""
