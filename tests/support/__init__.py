"""What the tests, the demo and the benchmarks stand on: real parts started well, and the few fakes."""
