"""The clock, what is measured with it, and how one measurement follows another."""
