"""What is to be learned: data sets, fetched, made or drawn, as arrays with time first."""
