"""Several ranks load together: storage is read once, and ranks hand each other what they hold."""
