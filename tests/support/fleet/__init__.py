"""What tests of fleet and journal stand on, in this process."""
