"""What is measured: metrics, energy, traces."""
