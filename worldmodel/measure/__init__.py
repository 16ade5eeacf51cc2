"""Speed, memory, GPU and reliability measurements."""
