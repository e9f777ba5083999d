"""What happened, in order: one file that all copies of the server of one account share."""
