"""Cells in, a cell out."""
