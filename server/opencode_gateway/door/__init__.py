"""What every request meets first, whatever its route."""
