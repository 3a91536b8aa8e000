"""What is measured, contender beside contender, and how one measurement follows another."""
