"""What more than one study measures."""
