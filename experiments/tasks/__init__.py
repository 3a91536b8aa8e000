"""What is to be learned: data sets, fetched or drawn, as arrays with time first."""
